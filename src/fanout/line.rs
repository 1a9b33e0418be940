//! The updates that wait for one socket, in a line, in which a newer one can take the place of an older one of its key.
//!
//! Invariant: where there is an index it knows the last place of each topic that waits, and nothing else. A short line
//! has none: looking through it costs less than the index would, in memory above all.
//! Invariant: of a long line at least every other place is taken, however long nobody comes to its front.

use super::Run;
use crate::config::Policy;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::rc::Rc;

/// A channel that conflates, and a key of it (see [`Run::key`]). Updates of other channels, and notices, have none.
type Topic = (u32, u64);

/// Lines longer than this have an index.
const INDEX_FROM: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Places; one that was vacated from the middle is empty until it comes to the front.
    places: VecDeque<Option<Rc<Run>>>,
    /// The number of the first place: places keep their numbers as others leave.
    first: i64,
    index: Option<Box<HashMap<Topic, i64>>>,
    /// Places that are taken.
    taken: usize,
    updates: usize,
    /// Of them, those of channels that conflate.
    topical: usize,
    bytes: usize,
    /// Of them, those that no other socket shares.
    owned: usize,
}

fn topic(run: &Run) -> Option<Topic> {
    (run.updates > 0 && run.policy == Policy::Conflate).then_some((run.channel, run.key))
}

impl Line {
    /// Updates that wait (notices not counted).
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// Updates that wait of channels that do not conflate.
    pub fn untopical(&self) -> usize {
        self.updates - self.topical
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Bytes that wait and that no other socket shares: notices.
    pub fn owned(&self) -> usize {
        self.owned
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Who is next.
    pub fn front(&self) -> Option<&Rc<Run>> {
        self.places.front().and_then(Option::as_ref)
    }

    /// Who waits of the same topic, the last of them.
    pub fn older(&self, run: &Run) -> Option<&Rc<Run>> {
        let place = self.place_of(run)?;
        self.places[(place - self.first) as usize].as_ref()
    }

    /// To the end of the line.
    pub fn push(&mut self, run: Rc<Run>) {
        self.count(&run);
        if let (Some(index), Some(topic)) = (&mut self.index, topic(&run)) {
            index.insert(topic, self.first + self.places.len() as i64);
        }
        self.places.push_back(Some(run));
        if self.places.len() > INDEX_FROM && self.index.is_none() {
            self.make_index();
        }
    }

    /// To the front of the line.
    pub fn push_front(&mut self, run: Rc<Run>) {
        self.count(&run);
        self.first -= 1;
        if let (Some(index), Some(topic)) = (&mut self.index, topic(&run)) {
            index.entry(topic).or_insert(self.first);
        }
        self.places.push_front(Some(run));
    }

    /// Takes the place of [`Line::older`], which must be there.
    pub fn replace(&mut self, run: Rc<Run>) {
        let Some(place) = self.place_of(&run) else { return self.push(run) };
        self.count(&run);
        if let Some(older) = self.places[(place - self.first) as usize].replace(run) {
            self.discount(&older);
        }
    }

    /// The one of the same topic as `run` goes to the front: to the place that `run` had.
    pub fn advance(&mut self, run: &Run) {
        if let Some(newer) = self.take_older(run) {
            self.push_front(newer);
        }
    }

    /// Takes [`Line::older`] out.
    pub fn take_older(&mut self, run: &Run) -> Option<Rc<Run>> {
        let place = self.place_of(run)?;
        self.vacate((place - self.first) as usize)
    }

    /// The next one leaves the line.
    pub fn pop(&mut self) -> Option<Rc<Run>> {
        let run = self.places.pop_front()??;
        self.forget_place(&run, self.first);
        self.first += 1;
        self.discount(&run);
        self.trim();
        Some(run)
    }

    /// Drops the oldest update that fits and may be dropped. Notices stay, and so do the updates of channels that would
    /// rather have the socket closed.
    pub fn drop_oldest(&mut self, fits: impl Fn(&Run) -> bool) -> Option<Rc<Run>> {
        let may = |run: &Rc<Run>| run.updates > 0 && run.policy != Policy::Disconnect && fits(run);
        let at = self.places.iter().position(|place| place.as_ref().is_some_and(may))?;
        self.vacate(at)
    }

    /// Whether a notice about the same as this one waits.
    pub fn has_notice(&self, notice: &Run) -> bool {
        self.place_of_notice(notice).is_some()
    }

    /// Takes the notice about the same as this one out, if one waits.
    pub fn take_notice(&mut self, notice: &Run) -> Option<Rc<Run>> {
        let at = self.place_of_notice(notice)?;
        self.vacate(at)
    }

    /// Takes the place of the notice about the same, or the last place.
    pub fn renew_notice(&mut self, notice: Rc<Run>) {
        let Some(at) = self.place_of_notice(&notice) else { return self.push(notice) };
        self.count(&notice);
        if let Some(older) = self.places[at].replace(notice) {
            self.discount(&older);
        }
    }

    /// Keeps the newest of each topic, in the place of the oldest; how many went.
    pub fn collapse(&mut self) -> u64 {
        let mut gone = 0;
        let mut oldest: HashMap<Topic, usize> = HashMap::new();
        for at in 0..self.places.len() {
            let Some(run) = self.places[at].take() else { continue };
            let place = topic(&run).map_or(at, |topic| *oldest.entry(topic).or_insert(at));
            if let Some(older) = self.places[place].replace(run) {
                self.discount(&older);
                gone += 1;
            }
        }
        self.close_ranks();
        gone
    }

    /// Drops all that waits, of one channel if it is said, notices too; how many updates.
    pub fn forget(&mut self, channel: Option<u32>) -> u64 {
        let before = self.updates;
        for at in 0..self.places.len() {
            if self.places[at].as_ref().is_some_and(|run| channel.is_none_or(|channel| channel == run.channel))
                && let Some(run) = self.places[at].take()
            {
                self.discount(&run);
            }
        }
        self.close_ranks();
        (before - self.updates) as u64
    }

    fn vacate(&mut self, at: usize) -> Option<Rc<Run>> {
        let run = self.places[at].take()?;
        self.forget_place(&run, self.first + at as i64);
        self.discount(&run);
        self.trim();
        if self.places.len() > INDEX_FROM && self.places.len() > 2 * self.taken {
            self.close_ranks();
        }
        Some(run)
    }

    /// Gives up the places that are empty.
    fn close_ranks(&mut self) {
        self.places.retain(Option::is_some);
        self.index = None;
        if self.places.len() > INDEX_FROM {
            self.make_index();
        }
    }

    /// The index forgets a place, unless a later one has the same topic.
    fn forget_place(&mut self, run: &Run, place: i64) {
        if let (Some(index), Some(topic)) = (&mut self.index, topic(run))
            && index.get(&topic) == Some(&place)
        {
            index.remove(&topic);
        }
    }

    /// The last place of a run's topic.
    fn place_of(&self, run: &Run) -> Option<i64> {
        let wanted = topic(run)?;
        if let Some(index) = &self.index {
            return index.get(&wanted).copied();
        }
        let fits = |run: &Rc<Run>| topic(run) == Some(wanted);
        let at = self.places.iter().rposition(|place| place.as_ref().is_some_and(fits))?;
        Some(self.first + at as i64)
    }

    fn place_of_notice(&self, notice: &Run) -> Option<usize> {
        let about = (notice.channel, notice.key);
        let fits = |run: &Rc<Run>| run.updates == 0 && (run.channel, run.key) == about;
        self.places.iter().position(|place| place.as_ref().is_some_and(fits))
    }

    fn make_index(&mut self) {
        let numbered = self.places.iter().zip(self.first..);
        let index = numbered.filter_map(|(place, number)| Some((topic(place.as_ref()?)?, number))).collect();
        self.index = Some(Box::new(index));
    }

    fn trim(&mut self) {
        while matches!(self.places.front(), Some(None)) {
            self.places.pop_front();
            self.first += 1;
        }
        while matches!(self.places.back(), Some(None)) {
            self.places.pop_back();
        }
        if self.places.is_empty() {
            self.index = None;
        }
    }

    fn count(&mut self, run: &Run) {
        self.taken += 1;
        self.updates += run.updates as usize;
        self.topical += usize::from(topic(run).is_some());
        self.bytes += run.bytes().len();
        self.owned += run.owned_bytes();
    }

    fn discount(&mut self, run: &Run) {
        self.taken -= 1;
        self.updates -= run.updates as usize;
        self.topical -= usize::from(topic(run).is_some());
        self.bytes -= run.bytes().len();
        self.owned -= run.owned_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::Update;
    use crate::ids::Face;
    use std::sync::Arc;

    fn run(policy: Policy, channel: u32, key: u64, seq: u64) -> Rc<Run> {
        let update = Update { seq, received_us: seq, key, critical: false, frames: [Some([0; 10].into()), None] };
        Rc::new(Run::update(channel, policy, &Arc::new(update), Face::ALL[0]).unwrap())
    }

    #[test]
    fn a_line_whose_front_nobody_fetches_does_not_grow_by_what_leaves_from_its_middle() {
        let mut line = Line::default();
        line.push(run(Policy::DropNewest, 1, 0, 0));
        (0..50).for_each(|seq| line.push(run(Policy::DropOldest, 2, 0, seq)));
        for seq in 50..10_000 {
            line.push(run(Policy::DropOldest, 2, 0, seq));
            assert_eq!(line.drop_oldest(|run| run.channel == 2).unwrap().received_us, seq - 50, "the oldest");
        }
        assert_eq!((line.updates(), line.bytes(), line.taken), (51, 510, 51));
        assert!(line.places.len() <= 2 * line.taken + 1, "{} places", line.places.len());
    }

    #[test]
    fn a_long_line_gives_up_its_gaps_when_more_than_half_of_it_is_gaps_and_is_indexed_as_long_as_it_is_long() {
        for (places, dropped, closed_to, indexed) in [(34, 18, 16, false), (66, 34, 32, false), (68, 35, 33, true)] {
            let mut line = Line::default();
            let ends = |line: &mut Line, key| line.push(run(Policy::Conflate, 1, key, 0));
            ends(&mut line, 1);
            (2..places).for_each(|seq| line.push(run(Policy::DropOldest, 2, 0, seq)));
            ends(&mut line, 2);
            for gone in 1..dropped {
                line.drop_oldest(|run| run.channel == 2).unwrap();
                assert_eq!(line.places.len() as u64, places, "{gone} gaps");
            }
            line.drop_oldest(|run| run.channel == 2).unwrap();
            assert_eq!((line.places.len(), line.index.is_some()), (closed_to, indexed));
        }
        let mut short = Line::default();
        short.push(run(Policy::Conflate, 1, 0, 0));
        (1..31).for_each(|seq| short.push(run(Policy::DropOldest, 2, 0, seq)));
        short.push(run(Policy::Conflate, 1, 1, 0));
        while short.drop_oldest(|run| run.channel == 2).is_some() {}
        assert_eq!((short.places.len(), short.index.is_some()), (32, false), "a short line keeps its gaps");
        short.push(run(Policy::Conflate, 1, 2, 0));
        assert_eq!((short.places.len(), short.index.is_some()), (33, true));
    }

    #[test]
    fn a_long_line_finds_each_topic_as_a_short_one_does() {
        for keys in [3, 200] {
            let mut line = Line::default();
            for key in 0..keys {
                line.push(run(Policy::Conflate, 1, key, key));
                line.push(run(Policy::DropOldest, 2, key, key));
            }
            assert_eq!(line.index.is_some(), keys > 16);
            for key in (0..keys).rev() {
                line.replace(run(Policy::Conflate, 1, key, 1000 + key));
                assert_eq!(line.older(&run(Policy::Conflate, 1, key, 0)).unwrap().received_us, 1000 + key);
            }
            assert!(line.older(&run(Policy::Conflate, 1, keys, 0)).is_none(), "no such key");
            assert!(line.older(&run(Policy::DropOldest, 2, 0, 0)).is_none(), "it has no topics");
            let finds = |line: &Line, keys: &[u64]| {
                let older = keys.iter().map(|key| line.older(&run(Policy::Conflate, 1, *key, 0)));
                older.map(|older| older.map_or(0, |older| older.received_us)).collect::<Vec<_>>()
            };
            line.advance(&run(Policy::Conflate, 1, 2, 0));
            assert_eq!(finds(&line, &[0, 1, 2]), [1000, 1001, 1002], "one went to the front");
            assert_eq!(line.pop().unwrap().received_us, 1002);
            assert_eq!(finds(&line, &[0, 1, 2]), [1000, 1001, 0], "and left");
            assert_eq!(line.pop().unwrap().received_us, 1000, "places keep their order");
            assert_eq!(finds(&line, &[0, 1, keys - 1]), [0, 1001, if keys == 3 { 0 } else { 999 + keys }]);
            line.push_front(run(Policy::Conflate, 1, 1, 5));
            assert_eq!(finds(&line, &[1]), [1001], "the last of its topic");
            assert_eq!((line.collapse(), line.pop().unwrap().received_us), (1, 1001));
            line.push(run(Policy::Conflate, 1, 1, 6));
            assert_eq!(line.drop_oldest(|_| true).unwrap().channel, 2);
            assert_eq!(finds(&line, &[0, 1]), [0, 6]);
            assert_eq!(line.take_older(&run(Policy::Conflate, 1, 1, 0)).unwrap().received_us, 6);
            assert_eq!(line.forget(Some(1)), keys - 3);
            assert_eq!(line.forget(None), keys - 1);
            assert!(line.is_empty() && line.index.is_none());
        }
    }
}
