//! Listings must get on: a server that goes on from nowhere, or in a circle, would keep us for ever.

/// Watches the places from which a listing of several requests goes on. The place that is remembered moves at every
/// power of two, so that every circle is found, of whatever length, in the memory of one place.
pub(super) struct Onward<P> {
    steps: u64,
    seen: P,
}

impl<P: Clone + PartialEq> Onward<P> {
    pub(super) fn from(start: P) -> Self {
        Self { steps: 0, seen: start }
    }

    /// Whether to go on from `next`; `what` is listed.
    pub(super) fn step(&mut self, next: &P, what: &str) -> Result<(), String> {
        if *next == self.seen {
            return Err(format!("the {what} do not go on: the server is where it was {} requests ago", {
                self.steps - self.last_move() + 1
            }));
        }
        self.steps += 1;
        if self.steps.is_power_of_two() {
            self.seen = next.clone();
        }
        Ok(())
    }

    fn last_move(&self) -> u64 {
        if self.steps == 0 { 0 } else { 1 << self.steps.ilog2() }
    }
}

/// A page that says more and does not say where.
pub(super) fn nowhere(what: &str) -> String {
    format!("the {what} do not go on: there are more, and no place to go on from")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_circle_is_found_and_nothing_else() {
        for lead in [0, 1, 5, 100] {
            for circle in [1, 2, 3, 64, 100] {
                let place = |n: u64| if n < lead { n } else { lead + (n - lead) % circle };
                let mut onward = Onward::from(place(0));
                let end =
                    (1..10_000).find_map(|n| onward.step(&place(n), "keys").err().map(|said| (n, said)));
                let (requests, said) = end.unwrap();
                assert!(requests <= 4 * (lead + circle), "{lead} {circle}: {requests}");
                assert!(said.contains(&format!("was {circle} requests ago")), "{lead} {circle}: {said}");
            }
        }
        let mut onward = Onward::from(0);
        assert!((1..10_000).all(|n| onward.step(&n, "keys").is_ok()));
    }
}
