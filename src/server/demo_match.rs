//! A football match for the demo page, played for ever. Pure and seeded: no IO, no clock.
//!
//! Somebody else calls [`DemoMatch::tick`] ten times a second and publishes what it returns. Match time runs twenty
//! times as fast as the wall, so that a match lasts four and a half minutes; the players run at their natural pace.
//!
//! Promise: whoever joins late knows names, score, clock and scorers within half a second, without any history.
//! Promise: the score is the number of goals told, and no payload reaches `PAYLOAD_BYTES_MAX`.

use super::demo_pitch::{Happening, Pitch};
use super::demo_places::SIDE;
use fastrand::Rng;
use serde::Serialize;

/// Channel of the match clock: twice a second, and at once when the score or the period changes.
pub const CLOCK: &str = "match.1.clock";
/// Channel of the ball and the players: every tick.
pub const POSITIONS: &str = "match.1.positions";
/// Channel of what a reporter would write down: now and then.
pub const EVENTS: &str = "match.1.events";

/// Calls of [`DemoMatch::tick`] that make one second.
pub const TICKS_PER_SECOND: u32 = 10;
/// No payload is as long as this.
pub const PAYLOAD_BYTES_MAX: usize = 2048;

const MATCH_SECONDS_PER_TICK: u32 = 2;
const HALF_SECONDS: u32 = 45 * 60;
const HALF_TICKS: u32 = HALF_SECONDS / MATCH_SECONDS_PER_TICK;
const HALF_TIME_TICKS: u32 = 10 * TICKS_PER_SECOND;
const FULL_TIME_TICKS: u32 = 15 * TICKS_PER_SECOND;
const CLOCK_EVERY_TICKS: u32 = 5;
/// The clock message names this many of the newest goals.
const GOALS_NAMED_MAX: usize = 12;

const TEAMS: [&str; 6] =
    ["Harbour City", "Northgate United", "Riverside Athletic", "Old Mill Rovers", "Summit Town", "Eastfield"];
#[rustfmt::skip]
const NAMES: [&str; 33] = [
    "Okafor", "Lindqvist", "Marchetti", "Duarte", "Novak", "Haddad", "Brennan", "Sato", "Kowalski", "Mbeki", "Fischer",
    "Olsen", "Ferrari", "Santos", "Petrov", "Nguyen", "Costa", "Bakker", "Moreau", "Diallo", "Keane", "Yilmaz",
    "Horvat", "Silva", "Adeyemi", "Larsen", "Romero", "Weber", "Kim", "Rossi", "Walsh", "Traore", "Berg",
];

/// The match, and after it the next one.
#[derive(Debug)]
pub struct DemoMatch {
    rng: Rng,
    pitch: Pitch,
    number: u32,
    teams: [&'static str; 2],
    names: [&'static str; 2 * SIDE],
    period: Period,
    period_ticks: u32,
    score: [u32; 2],
    goals: Vec<Goal>,
    possession_ticks: [u32; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Period {
    FirstHalf,
    HalfTime,
    SecondHalf,
    FullTime,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Goal {
    side: usize,
    minute: u32,
    player: &'static str,
}

#[derive(Serialize)]
struct ClockMessage<'a> {
    r#match: u32,
    teams: [&'static str; 2],
    score: [u32; 2],
    period: Period,
    clock_s: u32,
    possession: [u32; 2],
    goals: &'a [Goal],
    players: [&'a [&'static str]; 2],
}

/// Places in decimetres from the top left corner: short, and exact enough.
#[derive(Serialize)]
struct PositionsMessage {
    ball: [i32; 2],
    players: Vec<[i32; 2]>,
    holder: Option<usize>,
}

#[derive(Serialize)]
struct EventMessage {
    kind: &'static str,
    minute: u32,
    #[serde(flatten)]
    by: Option<By>,
    score: [u32; 2],
}

/// Who did it; left out where it was nobody's doing.
#[derive(Serialize)]
struct By {
    side: usize,
    team: &'static str,
    player: &'static str,
    outcome: Option<&'static str>,
}

impl DemoMatch {
    /// The match before its first kick-off; equal seeds play equal matches.
    pub fn with_seed(seed: u64) -> Self {
        let mut demo = Self {
            rng: Rng::with_seed(seed),
            pitch: Pitch::new(),
            number: 0,
            teams: [""; 2],
            names: [""; 2 * SIDE],
            period: Period::FirstHalf,
            period_ticks: 0,
            score: [0; 2],
            goals: Vec::new(),
            possession_ticks: [0; 2],
        };
        demo.start_match();
        demo
    }

    /// Plays a tenth of a second and returns what is to be published: pairs of a channel and a JSON payload, in order.
    ///
    /// The caller keeps the pace ([`TICKS_PER_SECOND`]); a call that comes late plays no more than one that is in time.
    pub fn tick(&mut self) -> Vec<(&'static str, Vec<u8>)> {
        let mut events = Vec::from_iter(self.turn_period());
        match self.period {
            Period::FirstHalf | Period::SecondHalf => {
                events.extend(self.pitch.step(&mut self.rng).map(|happening| self.report(happening)));
                self.possession_ticks[self.pitch.possession()] += 1;
            }
            Period::HalfTime | Period::FullTime => self.pitch.stroll(&mut self.rng),
        }
        let clock_due = self.period_ticks.is_multiple_of(CLOCK_EVERY_TICKS) || !events.is_empty();
        self.period_ticks += 1;

        let mut messages = vec![(POSITIONS, encode(&self.positions()))];
        messages.extend(events.iter().map(|event| (EVENTS, encode(event))));
        if clock_due {
            messages.push((CLOCK, encode(&self.clock())));
        }
        messages
    }

    /// Moves on to the next period where this one is over, and tells of it.
    fn turn_period(&mut self) -> Option<EventMessage> {
        let (next, kind) = match (self.period, self.period_ticks) {
            (Period::FirstHalf, 0) => return Some(self.event("kick_off")),
            (Period::FirstHalf, HALF_TICKS..) => (Period::HalfTime, "half_time"),
            (Period::HalfTime, HALF_TIME_TICKS..) => (Period::SecondHalf, "second_half"),
            (Period::SecondHalf, HALF_TICKS..) => (Period::FullTime, "full_time"),
            (Period::FullTime, FULL_TIME_TICKS..) => {
                self.start_match();
                return Some(self.event("kick_off"));
            }
            _ => return None,
        };
        (self.period, self.period_ticks) = (next, 0);
        match next {
            Period::HalfTime => self.pitch.await_kick_off(1, false),
            Period::FullTime => self.pitch.await_kick_off(0, true),
            Period::FirstHalf | Period::SecondHalf => {}
        }
        Some(self.event(kind))
    }

    fn start_match(&mut self) {
        self.number += 1;
        (self.period, self.period_ticks) = (Period::FirstHalf, 0);
        (self.score, self.possession_ticks) = ([0; 2], [0; 2]);
        self.goals.clear();
        let (mut teams, mut names) = (TEAMS, NAMES);
        self.rng.shuffle(&mut teams);
        self.rng.shuffle(&mut names);
        self.teams.copy_from_slice(&teams[..2]);
        self.names.copy_from_slice(&names[..2 * SIDE]);
    }

    fn report(&mut self, happening: Happening) -> EventMessage {
        let (kind, by, outcome) = match happening {
            Happening::Goal { by } => ("goal", by, None),
            Happening::Shot { by, saved } => ("shot", by, Some(if saved { "saved" } else { "wide" })),
            Happening::Corner { by } => ("corner", by, None),
            Happening::Card { by } => ("card", by, Some("yellow")),
        };
        let (side, player) = (by / SIDE, self.names[by]);
        if kind == "goal" {
            self.score[side] += 1;
            self.goals.push(Goal { side, minute: self.minute(), player });
        }
        EventMessage { by: Some(By { side, team: self.teams[side], player, outcome }), ..self.event(kind) }
    }

    fn event(&self, kind: &'static str) -> EventMessage {
        EventMessage { kind, minute: self.minute(), by: None, score: self.score }
    }

    fn clock(&self) -> ClockMessage<'_> {
        let total = self.possession_ticks.iter().sum::<u32>().max(1);
        let home =
            if self.possession_ticks == [0; 2] { 50 } else { (self.possession_ticks[0] * 100 + total / 2) / total };
        let (home_players, away_players) = self.names.split_at(SIDE);
        ClockMessage {
            r#match: self.number,
            teams: self.teams,
            score: self.score,
            period: self.period,
            clock_s: self.clock_s(),
            possession: [home, 100 - home],
            goals: &self.goals[self.goals.len().saturating_sub(GOALS_NAMED_MAX)..],
            players: [home_players, away_players],
        }
    }

    fn positions(&self) -> PositionsMessage {
        let decimetres = |metres: f32| (metres * 10.0).round() as i32;
        let ball = self.pitch.ball();
        PositionsMessage {
            ball: [decimetres(ball.x), decimetres(ball.y)],
            players: self.pitch.players().map(|at| [decimetres(at.x), decimetres(at.y)]).collect(),
            holder: self.pitch.holder(),
        }
    }

    fn clock_s(&self) -> u32 {
        let played = (self.period_ticks * MATCH_SECONDS_PER_TICK).min(HALF_SECONDS);
        match self.period {
            Period::FirstHalf => played,
            Period::HalfTime => HALF_SECONDS,
            Period::SecondHalf => HALF_SECONDS + played,
            Period::FullTime => 2 * HALF_SECONDS,
        }
    }

    /// The minute as reporters count it: the first one is 1.
    fn minute(&self) -> u32 {
        (self.clock_s() / 60 + 1).min(2 * HALF_SECONDS / 60)
    }
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("plain structs of numbers and strings are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const MATCH_TICKS: u32 = 2 * HALF_TICKS + HALF_TIME_TICKS + FULL_TIME_TICKS;

    /// Plays some matches and hands every message, decoded, to the caller.
    fn play(seed: u64, matches: u32, mut look: impl FnMut(&'static str, &Value, usize)) {
        let mut demo = DemoMatch::with_seed(seed);
        for _ in 0..matches * MATCH_TICKS {
            for (channel, payload) in demo.tick() {
                look(channel, &serde_json::from_slice(&payload).expect("valid JSON"), payload.len());
            }
        }
    }

    #[test]
    fn equal_seeds_play_equal_matches() {
        let [mut one, mut same, mut other] = [7, 7, 8].map(DemoMatch::with_seed);
        let mut differs = false;
        for _ in 0..MATCH_TICKS {
            let messages = one.tick();
            assert_eq!(messages, same.tick());
            differs |= messages != other.tick();
        }
        assert!(differs);
    }

    #[test]
    fn score_is_the_number_of_goals_told() {
        let mut told = [0_u64; 2];
        play(1, 3, |channel, message, _| match (channel, message["kind"].as_str()) {
            (POSITIONS, _) => {}
            (EVENTS, Some("kick_off")) => told = [0; 2],
            (EVENTS, Some("goal")) => told[message["side"].as_u64().expect("a side") as usize] += 1,
            _ => assert_eq!(message["score"], serde_json::json!(told), "{message}"),
        });
    }

    #[test]
    fn goals_come_about_every_forty_seconds() {
        let mut goals = 0;
        play(3, 15, |channel, message, _| goals += u32::from(channel == EVENTS && message["kind"] == "goal"));
        let seconds = 15 * 2 * HALF_TICKS / TICKS_PER_SECOND;
        assert!((30..50).contains(&(seconds / goals)), "a goal every {} s", seconds / goals);
    }

    #[test]
    fn every_payload_is_short_json() {
        play(4, 3, |channel, _, bytes| assert!(bytes < PAYLOAD_BYTES_MAX, "{channel}: {bytes} bytes"));
    }

    #[test]
    fn clock_never_steps_back_within_a_match() {
        let mut last = (0, 0);
        play(5, 2, |channel, message, _| {
            if channel == CLOCK {
                let now = (message["match"].as_u64().expect("a number"), message["clock_s"].as_u64().expect("seconds"));
                assert!(now >= last, "{last:?} to {now:?}");
                last = now;
            }
        });
        assert_eq!(last, (2, u64::from(2 * HALF_SECONDS)));
    }

    #[test]
    fn nothing_on_the_pitch_jumps() {
        let mut last: Option<Vec<(f64, f64)>> = None;
        play(6, 2, |channel, message, _| {
            if channel != POSITIONS {
                return;
            }
            let players = message["players"].as_array().expect("players").iter();
            let spot = |at: &Value| (at[0].as_f64().expect("x"), at[1].as_f64().expect("y"));
            let now: Vec<_> = std::iter::once(&message["ball"]).chain(players).map(spot).collect();
            for (thing, (from, to)) in last.iter().flatten().zip(&now).enumerate() {
                let reach = if thing == 0 { 28.0 } else { 10.0 };
                assert!((from.0 - to.0).hypot(from.1 - to.1) < reach, "{thing} from {from:?} to {to:?} decimetres");
            }
            last = Some(now);
        });
    }
}
