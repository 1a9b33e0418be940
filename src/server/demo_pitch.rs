//! Twenty-two players and a ball, for the demo match. Pure: no IO, no clock; chance comes in as an argument.
//!
//! Players keep a formation that drifts with the ball; the ball is dribbled, passed, lost and shot, and never jumps.
//! Rules that nobody misses on a screen the size of a hand (offside, throw-ins) are left out.
//!
//! Invariant: nobody outruns `SPRINT`, and nothing flies faster than `SHOT_SPEED`.

use super::demo_places::{FORMATIONS, LENGTH, Player, Point, SIDE, WIDTH, distance, inside, is_keeper, towards};
use fastrand::Rng;

/// Metres that something moves in a tick of a tenth of a second.
const SPRINT: f32 = 0.75;
const DRIBBLE: f32 = 0.48;
const PASS_SPEED: f32 = 1.7;
const SHOT_SPEED: f32 = 2.6;

/// Something that a reporter would write down. Players are numbered 0 to 21, the home side first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Happening {
    /// The ball is in the net.
    Goal { by: usize },
    /// A shot that was held by the keeper, or went wide.
    Shot { by: usize, saved: bool },
    /// A shot turned behind; `by` will take the corner.
    Corner { by: usize },
    /// A yellow card for a foul.
    Card { by: usize },
}

#[derive(Clone, Copy, Debug)]
enum ShotEnd {
    Goal,
    Saved,
    Wide,
    Corner,
}

#[derive(Clone, Copy, Debug)]
enum Play {
    /// At somebody's feet, until he decides what to do with it.
    Held { by: usize, ticks: u32 },
    /// Rolling; whoever is nearest when it arrives has it.
    Passed { to: usize, aim: Point },
    /// On its way to the goal; how it ends is already drawn.
    Shot { by: usize, aim: Point, end: ShotEnd },
    /// Out of play: carried to `spot`, kicked by `taker` once he is there and the wait is over.
    Dead { spot: Point, taker: usize, wait: u32, kick_off: bool },
}

/// The pitch with all that moves on it.
#[derive(Debug)]
pub(super) struct Pitch {
    players: [Player; 2 * SIDE],
    ball: Point,
    play: Play,
    last_touch: usize,
    home_attacks_right: bool,
}

impl Pitch {
    /// Everybody in place, the ball on the centre spot, the home side to kick off.
    pub(super) fn new() -> Self {
        let rest = Point { x: 0.0, y: 0.0 };
        let centre = Point { x: LENGTH / 2.0, y: WIDTH / 2.0 };
        let mut pitch = Self {
            players: [Player { at: centre, velocity: rest, whim: rest }; 2 * SIDE],
            ball: centre,
            play: Play::Held { by: 0, ticks: 0 },
            last_touch: 0,
            home_attacks_right: true,
        };
        pitch.await_kick_off(0, true);
        for who in 0..2 * SIDE {
            pitch.players[who].at = pitch.place(who, true);
        }
        pitch
    }

    /// Sends everybody back to their own half; `side` kicks off when [`Pitch::step`] is called again.
    pub(super) fn await_kick_off(&mut self, side: usize, home_attacks_right: bool) {
        self.home_attacks_right = home_attacks_right;
        let spot = Point { x: LENGTH / 2.0, y: WIDTH / 2.0 };
        self.play = Play::Dead { spot, taker: side * SIDE + SIDE - 2, wait: 25, kick_off: true };
    }

    /// A tenth of a second without play: the players walk to their places.
    pub(super) fn stroll(&mut self, rng: &mut Rng) {
        self.move_players(rng);
        self.move_ball(0.6);
        if let Play::Dead { wait, .. } = &mut self.play {
            *wait = wait.saturating_sub(1);
        }
    }

    /// A tenth of a second of play.
    pub(super) fn step(&mut self, rng: &mut Rng) -> Option<Happening> {
        self.move_players(rng);
        match self.play {
            Play::Held { by, ticks } => self.step_held(by, ticks, rng),
            Play::Passed { .. } => {
                self.step_passed(rng);
                None
            }
            Play::Shot { by, aim, end } => self.step_shot(by, aim, end, rng),
            Play::Dead { spot, taker, wait, kick_off } => {
                self.move_ball(1.2);
                self.play = Play::Dead { spot, taker, wait: wait.saturating_sub(1), kick_off };
                let ready = wait == 0 && self.ball == spot && distance(self.players[taker].at, spot) < 1.5;
                let in_place =
                    !kick_off || (0..2 * SIDE).all(|who| distance(self.players[who].at, self.place(who, true)) < 9.0);
                if ready && in_place {
                    self.last_touch = taker;
                    self.pass(taker, rng);
                }
                None
            }
        }
    }

    /// The side that touched the ball last: 0 is home, 1 is away.
    pub(super) fn possession(&self) -> usize {
        self.last_touch / SIDE
    }

    /// Where the ball is.
    pub(super) fn ball(&self) -> Point {
        self.ball
    }

    /// Where the players are, the home side first.
    pub(super) fn players(&self) -> impl Iterator<Item = Point> {
        self.players.iter().map(|player| player.at)
    }

    /// The player who has the ball at his feet.
    pub(super) fn holder(&self) -> Option<usize> {
        if let Play::Held { by, .. } = self.play { Some(by) } else { None }
    }

    fn step_held(&mut self, by: usize, ticks: u32, rng: &mut Rng) -> Option<Happening> {
        let player = self.players[by];
        let pace = player.velocity.x.hypot(player.velocity.y).max(0.01);
        let feet =
            Point { x: player.at.x + player.velocity.x / pace * 0.8, y: player.at.y + player.velocity.y / pace * 0.8 };
        self.ball = towards(self.ball, feet, 1.0);
        let rival = self.nearest_to(self.ball, 1 - by / SIDE);
        let close = distance(self.players[rival].at, player.at) < 1.6;
        if close && !is_keeper(by) && !is_keeper(rival) && rng.f32() < 0.05 {
            return self.tackle(rival, by, rng);
        }
        if ticks > 0 {
            self.play = Play::Held { by, ticks: ticks - 1 };
            return None;
        }
        let range = distance(player.at, self.goal_of(1 - by / SIDE));
        if range < 14.0 || (range < 24.0 && rng.f32() < 0.5) {
            self.shoot(by, rng);
        } else {
            self.pass(by, rng);
        }
        None
    }

    fn step_passed(&mut self, rng: &mut Rng) {
        self.move_ball(PASS_SPEED);
        let Play::Passed { to, aim } = self.play else { return };
        let thief = self.nearest_to(self.ball, 1 - self.last_touch / SIDE);
        if distance(self.players[thief].at, self.ball) < 1.3 && rng.f32() < 0.3 {
            return self.take(thief, rng);
        }
        if distance(self.players[to].at, self.ball) < 1.3 {
            return self.take(to, rng);
        }
        let mate = self.nearest_to(self.ball, to / SIDE);
        if self.ball == aim {
            for who in [mate, thief] {
                if distance(self.players[who].at, self.ball) < 1.5 {
                    return self.take(who, rng);
                }
            }
        }
    }

    fn step_shot(&mut self, by: usize, aim: Point, end: ShotEnd, rng: &mut Rng) -> Option<Happening> {
        self.move_ball(SHOT_SPEED);
        if self.ball != aim {
            return None;
        }
        let (side, other) = (by / SIDE, 1 - by / SIDE);
        let goal = self.goal_of(other);
        let inward = if goal.x > 0.0 { -1.0 } else { 1.0 };
        match end {
            ShotEnd::Goal => {
                self.await_kick_off(other, self.home_attacks_right);
                Some(Happening::Goal { by })
            }
            ShotEnd::Saved => {
                self.play = Play::Passed { to: other * SIDE, aim };
                Some(Happening::Shot { by, saved: true })
            }
            ShotEnd::Wide => {
                let spot = Point { x: goal.x + inward * 5.5, y: goal.y + 4.0 };
                self.play = Play::Dead { spot, taker: other * SIDE, wait: 20, kick_off: false };
                Some(Happening::Shot { by, saved: false })
            }
            ShotEnd::Corner => {
                let flag = if aim.y < goal.y { 0.5 } else { WIDTH - 0.5 };
                let spot = Point { x: goal.x + inward * 0.5, y: flag };
                let taker = self.nearest_to(spot, side);
                self.play = Play::Dead { spot, taker, wait: 25 + rng.u32(0..10), kick_off: false };
                Some(Happening::Corner { by: taker })
            }
        }
    }

    fn tackle(&mut self, rival: usize, by: usize, rng: &mut Rng) -> Option<Happening> {
        if rng.f32() < 0.2 {
            let spot = inside(self.ball);
            self.play = Play::Dead { spot, taker: by, wait: 30, kick_off: false };
            return Some(Happening::Card { by: rival });
        }
        self.take(rival, rng);
        None
    }

    fn take(&mut self, who: usize, rng: &mut Rng) {
        self.last_touch = who;
        let ticks = if is_keeper(who) { 12 } else { rng.u32(5..18) };
        self.play = Play::Held { by: who, ticks };
    }

    /// Passes to the mate who is free, ahead and not too far; mostly.
    fn pass(&mut self, by: usize, rng: &mut Rng) {
        let side = by / SIDE;
        let from = self.ball;
        let ahead = if self.attacks_right(side) { 1.0 } else { -1.0 };
        let mut best = (f32::MIN, by);
        for mate in (side * SIDE + 1..(side + 1) * SIDE).filter(|mate| *mate != by) {
            let at = self.players[mate].at;
            let range = distance(at, from);
            let rival = self.nearest_to(at, 1 - side);
            let free = distance(self.players[rival].at, at).min(10.0);
            let far = (range - 22.0).max(0.0) + (7.0 - range).max(0.0) * 4.0;
            let merit = free * 1.3 + (at.x - from.x) * ahead * 0.45 - far + rng.f32() * 9.0;
            if merit > best.0 {
                best = (merit, mate);
            }
        }
        let to = best.1;
        let mate = self.players[to];
        let flight = distance(mate.at, from) / PASS_SPEED;
        let aim =
            Point { x: mate.at.x + mate.velocity.x * flight * 0.8, y: mate.at.y + mate.velocity.y * flight * 0.8 };
        self.play = Play::Passed { to, aim: inside(aim) };
    }

    fn shoot(&mut self, by: usize, rng: &mut Rng) {
        let goal = self.goal_of(1 - by / SIDE);
        let inward = if goal.x > 0.0 { -1.0 } else { 1.0 };
        let post = if rng.bool() { 1.0 } else { -1.0 };
        let (end, deep, aside) = match rng.u32(0..100) {
            0..38 => (ShotEnd::Goal, -1.4, rng.f32() * 3.0),
            38..65 => (ShotEnd::Saved, 1.5, rng.f32() * 2.4),
            65..83 => (ShotEnd::Wide, -2.0, 4.8 + rng.f32() * 4.0),
            _ => (ShotEnd::Corner, -1.0, 5.5 + rng.f32() * 4.0),
        };
        let aim = Point { x: goal.x + inward * deep, y: goal.y + post * aside };
        self.play = Play::Shot { by, aim, end };
    }

    fn move_ball(&mut self, speed: f32) {
        let aim = match self.play {
            Play::Held { by, .. } => self.players[by].at,
            Play::Passed { aim, .. } | Play::Shot { aim, .. } => aim,
            // It lies where it went dead for a moment, then it is fetched.
            Play::Dead { wait, .. } if wait > 15 => self.ball,
            Play::Dead { spot, .. } => spot,
        };
        self.ball = towards(self.ball, aim, speed);
    }

    fn move_players(&mut self, rng: &mut Rng) {
        let chasers = [0, 1].map(|side| self.nearest_to(self.ball, side));
        for who in 0..2 * SIDE {
            if rng.f32() < 0.015 {
                self.players[who].whim = Point { x: rng.f32() * 8.0 - 4.0, y: rng.f32() * 8.0 - 4.0 };
            }
            let (target, pace) = self.target(who, chasers[who / SIDE] == who);
            self.players[who].run(target, pace);
        }
    }

    /// Where a player wants to be, and how fast he goes there.
    fn target(&self, who: usize, chaser: bool) -> (Point, f32) {
        let keeper = is_keeper(who);
        match self.play {
            Play::Held { by, .. } if by == who && !keeper => {
                let goal = self.goal_of(1 - who / SIDE);
                (Point { x: goal.x, y: goal.y + (self.players[who].at.y - goal.y) * 0.5 }, DRIBBLE)
            }
            Play::Held { by, .. } if chaser && !keeper && by / SIDE != who / SIDE && !is_keeper(by) => {
                (self.ball, SPRINT * 0.85)
            }
            Play::Passed { to, aim } if to == who || (chaser && self.ball == aim) => (aim, SPRINT),
            Play::Shot { aim, end: ShotEnd::Saved, by } if keeper && by / SIDE != who / SIDE => (aim, SPRINT),
            Play::Dead { spot, taker, .. } if taker == who => (spot, SPRINT),
            Play::Dead { kick_off: true, .. } => (self.place(who, true), SPRINT * 0.9),
            _ => (self.place(who, false), SPRINT * 0.8),
        }
    }

    /// The place of a player in his formation; it drifts with the ball, save for a kick-off.
    fn place(&self, who: usize, kick_off: bool) -> Point {
        let side = who / SIDE;
        let (up, across) = FORMATIONS[side][who % SIDE];
        let right = self.attacks_right(side);
        let ball_up = if right { self.ball.x } else { LENGTH - self.ball.x } / LENGTH;
        let ball_across = self.ball.y / WIDTH;
        let whim = self.players[who].whim;
        let (up, across) = if is_keeper(who) {
            (up + if kick_off { 0.0 } else { ball_up * 0.07 }, 0.5 + (ball_across - 0.5) * 0.15)
        } else if kick_off {
            (up * 0.62, across)
        } else {
            let push = if self.possession() == side { 0.07 } else { -0.04 };
            let up = (up * 0.8 + 0.04 + (ball_up - 0.5) * 0.6 + push).clamp(0.07, 0.93);
            (up + whim.x / LENGTH, across + (ball_across - across) * 0.22 + whim.y / WIDTH)
        };
        let x = up * LENGTH;
        inside(Point { x: if right { x } else { LENGTH - x }, y: across * WIDTH })
    }

    fn nearest_to(&self, spot: Point, side: usize) -> usize {
        let range = |who: &usize| distance(self.players[*who].at, spot);
        let side = side * SIDE..(side + 1) * SIDE;
        side.min_by(|a, b| range(a).total_cmp(&range(b))).expect("a side has eleven players")
    }

    fn goal_of(&self, side: usize) -> Point {
        Point { x: if self.attacks_right(side) { 0.0 } else { LENGTH }, y: WIDTH / 2.0 }
    }

    fn attacks_right(&self, side: usize) -> bool {
        (side == 0) == self.home_attacks_right
    }
}
