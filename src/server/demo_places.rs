//! Places and players on the pitch of the demo match: metres, formations and the little geometry they need. Pure.

/// Length of the pitch in metres.
pub(super) const LENGTH: f32 = 105.0;
/// Width of the pitch in metres.
pub(super) const WIDTH: f32 = 68.0;
/// Players of one side; the first of each is its keeper.
pub(super) const SIDE: usize = 11;

/// Where a side's players stand: how far up the pitch and how far across it, both from 0 to 1. Home plays 4-3-3, away 4-4-2.
#[rustfmt::skip]
pub(super) const FORMATIONS: [[(f32, f32); SIDE]; 2] = [
    [
        (0.03, 0.50),
        (0.26, 0.13), (0.20, 0.38), (0.20, 0.62), (0.26, 0.87),
        (0.47, 0.26), (0.40, 0.50), (0.47, 0.74),
        (0.72, 0.16), (0.76, 0.50), (0.72, 0.84),
    ],
    [
        (0.03, 0.50),
        (0.25, 0.14), (0.20, 0.37), (0.20, 0.63), (0.25, 0.86),
        (0.52, 0.13), (0.44, 0.38), (0.44, 0.62), (0.52, 0.87),
        (0.74, 0.40), (0.74, 0.62),
    ],
];

/// A place on the pitch in metres, from the corner at the top left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Along the pitch.
    pub(super) x: f32,
    /// Across the pitch.
    pub(super) y: f32,
}

/// A player: where he is and how he moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Player {
    /// Where he is.
    pub(super) at: Point,
    /// Metres that he moves in a tick.
    pub(super) velocity: Point,
    /// How far from his place he feels like standing just now.
    pub(super) whim: Point,
}

impl Player {
    /// Runs for a tick: gathers speed, at most `pace` metres a tick, and slows down on arrival.
    pub(super) fn run(&mut self, target: Point, pace: f32) {
        let wish = towards(self.at, target, pace.min(distance(self.at, target) * 0.12));
        self.velocity.x += (wish.x - self.at.x - self.velocity.x) * 0.25;
        self.velocity.y += (wish.y - self.at.y - self.velocity.y) * 0.25;
        self.at.x += self.velocity.x;
        self.at.y += self.velocity.y;
    }
}

/// Whether the player of this number (0 to 21) keeps a goal.
pub(super) fn is_keeper(who: usize) -> bool {
    who.is_multiple_of(SIDE)
}

/// Metres between two places.
pub(super) fn distance(a: Point, b: Point) -> f32 {
    (a.x - b.x).hypot(a.y - b.y)
}

/// The point at most `step` metres from `from` on the way to `to`.
pub(super) fn towards(from: Point, to: Point, step: f32) -> Point {
    let gap = distance(from, to);
    if gap <= step {
        return to;
    }
    Point { x: from.x + (to.x - from.x) / gap * step, y: from.y + (to.y - from.y) / gap * step }
}

/// The place on the pitch that is nearest to `spot`.
pub(super) fn inside(spot: Point) -> Point {
    Point { x: spot.x.clamp(0.5, LENGTH - 0.5), y: spot.y.clamp(0.5, WIDTH - 0.5) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_never_overshoots() {
        let (from, to) = (Point { x: 0.0, y: 0.0 }, Point { x: 3.0, y: 4.0 });
        assert_eq!(towards(from, to, 2.5), Point { x: 1.5, y: 2.0 });
        assert_eq!(towards(from, to, 5.0), to);
        assert_eq!(towards(from, to, 9.0), to);
        assert_eq!(towards(to, to, 0.0), to);
    }
}
