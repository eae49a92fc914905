//! Where a list goes on after an entry, even after one that is gone.
//!
//! A client walks a list page by page while entries come and go. Told the last entry it has, [`Order`] says where the rest
//! begins: nothing that stayed is missed, and nothing comes twice, as long as what stays keeps its order. For that it
//! remembers where the entries stood that earlier lists had. Pure: knows neither what the entries are nor how they are
//! written.

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::ServerKey;

/// Entries that are gone and remembered. Beyond it all are forgotten: a walk that goes on after one of them is served
/// from its server's first entry.
const MOST_GONE: usize = 20_000;

/// One entry of a list: its server and the server's own name for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) server: ServerKey,
    pub(super) name: Arc<str>,
}

/// The order of a list's entries.
#[derive(Debug, Default)]
pub(super) struct Order {
    entries: Vec<Mark>,
    places: HashMap<Mark, usize>,
    /// Entries that earlier lists had, each with the one that stood before it when it went.
    gone: HashMap<Mark, Option<Mark>>,
}

impl Order {
    /// The order of a list, given that of the list in whose place it comes.
    pub(super) fn new(entries: impl IntoIterator<Item = Mark>, earlier: Option<&Self>) -> Self {
        let entries: Vec<Mark> = entries.into_iter().collect();
        let places = entries.iter().cloned().zip(0..).collect();
        let mut order = Self { entries, places, gone: HashMap::new() };
        if let Some(earlier) = earlier {
            order.remember(earlier);
        }
        order
    }

    fn remember(&mut self, earlier: &Self) {
        let is_gone = |mark: &&Mark| !self.places.contains_key(*mark);
        let mut gone = earlier.gone.clone();
        gone.retain(|mark, _| is_gone(&mark));
        let before = std::iter::once(None).chain(earlier.entries.iter().map(Some));
        let went = earlier.entries.iter().zip(before).filter(|(mark, _)| is_gone(mark));
        gone.extend(went.map(|(mark, before)| (mark.clone(), before.cloned())));
        if gone.len() <= MOST_GONE {
            self.gone = gone;
        }
    }

    /// The position at which a list goes on whose last entry was this one.
    ///
    /// After an entry that is gone it goes on where that one stood. Where nobody knows that any more, as after a restart,
    /// with the first entry of the same server, or from the beginning: then some entries come twice, but none is missed.
    pub(super) fn after(&self, last: &Mark) -> usize {
        let mut last = Some(last);
        // Each step leads to an entry that went later or stood before, so that there are no more than entries.
        for _ in 0..=self.gone.len() {
            let Some(mark) = last else { return 0 };
            if let Some(place) = self.places.get(mark) {
                return place + 1;
            }
            last = match self.gone.get(mark) {
                Some(before) => before.as_ref(),
                None => return self.start_of(mark.server),
            };
        }
        0
    }

    fn start_of(&self, server: ServerKey) -> usize {
        self.entries.iter().position(|mark| mark.server == server).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::policy::ServerId;

    /// `a1` is the entry `1` of the server `a`.
    fn mark(text: &str) -> Mark {
        let (server, name) = text.split_at(1);
        Mark { server: ServerKey::of(&ServerId::new(server)), name: name.into() }
    }

    fn order(entries: &str, earlier: Option<&Order>) -> Order {
        Order::new(entries.split_whitespace().map(mark), earlier)
    }

    /// The lists that a client's list was, one after the other, and with which entry of the last one it goes on after `last`.
    #[track_caller]
    fn check(lists: &[&str], last: &str, next: Option<&str>) {
        let order = lists.iter().fold(None, |earlier: Option<Order>, list| Some(order(list, earlier.as_ref())));
        let order = order.unwrap();
        let found = order.entries.get(order.after(&mark(last)));
        assert_eq!(found, next.map(mark).as_ref(), "{lists:?} after {last}");
    }

    #[test]
    fn a_list_goes_on_after_its_last_entry() {
        check(&["a1 a2 b1"], "a1", Some("a2"));
        check(&["a1 a2 b1"], "a2", Some("b1"));
        check(&["a1 a2 b1"], "b1", None);
        check(&["a1 a2", "a1 a3 a2 a4"], "a2", Some("a4"));
    }

    #[test]
    fn after_an_entry_that_is_gone_it_goes_on_where_that_one_stood() {
        check(&["a1 a2 a3", "a1 a3"], "a2", Some("a3"));
        check(&["a1 a2 a3", "a3"], "a2", Some("a3"));
        check(&["a1 a2 a3", "a2 a3"], "a1", Some("a2"));
        check(&["a1 a2 a3", "a1 a2"], "a3", None);
        check(&["a1 a2 a3", "a1 a3", "a3"], "a2", Some("a3"));
        check(&["a1 a2 a3", "a1 a3", "a1 a4 a3"], "a2", Some("a4"));
        check(&["a1 a2 a3", "a3", "a2 a3"], "a2", Some("a3"));
        check(&["a1 a2 b1 c1", "a1 c1"], "b1", Some("c1"));
        check(&["a1 a2", ""], "a1", None);
    }

    #[test]
    fn where_an_entry_stood_that_nobody_remembers_its_server_begins_again() {
        check(&["a1 b1 b2"], "b7", Some("b1"));
        check(&["a1 b1 b2"], "c1", Some("a1"));
        check(&[""], "c1", None);
        let many: String = (0..=MOST_GONE).map(|n| format!("b{n} ")).collect();
        check(&[&format!("a1 {many} c1"), "a1 b_ c1"], "b9", Some("b_"));
    }

    /// A generator of its own, so that every run is the same.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % bound
        }
    }

    #[test]
    fn a_walk_meets_everything_that_stays_and_nothing_twice_whatever_comes_and_goes() {
        let mut draw = Draw(1);
        let mut next = 0;
        for page in (1..=12).cycle().take(600) {
            let mut fresh = |draw: &mut Draw| {
                next += 1;
                mark(&format!("{}{next}", ["a", "b", "c"][draw.below(3)]))
            };
            let mut entries: Vec<Mark> = (0..draw.below(40)).map(|_| fresh(&mut draw)).collect();
            let mut order = Order::new(entries.clone(), None);
            let mut stayed: HashSet<Mark> = entries.iter().cloned().collect();
            let (mut met, mut at) = (Vec::new(), 0);
            while at < entries.len() {
                met.extend(entries[at..].iter().take(page).cloned());
                for _ in 0..draw.below(4) {
                    for _ in 0..draw.below(6) {
                        if draw.below(2) == 0 && !entries.is_empty() {
                            stayed.remove(&entries.remove(draw.below(entries.len())));
                        } else {
                            entries.insert(draw.below(entries.len() + 1), fresh(&mut draw));
                        }
                    }
                    order = Order::new(entries.clone(), Some(&order));
                }
                at = order.after(met.last().unwrap());
            }
            let once: HashSet<Mark> = met.iter().cloned().collect();
            assert_eq!(once.len(), met.len(), "something came twice");
            assert!(stayed.is_subset(&once), "something that stayed was missed");
        }
    }
}
