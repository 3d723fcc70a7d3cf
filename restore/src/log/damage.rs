//! What is stored and does not hold: it ends a restore, unless it is to be passed over. Then it becomes a hole, which
//! the plan names; and what reads by that plan passes over nothing else.
//!
//! Only bytes that are not what they must be are passed over, and objects that are gone: not what can't be read now.

use super::facts::Hole;
use crate::error::{Error, Result};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Damage {
    mode: Mode,
    /// From where on nothing was to be had, and why.
    open: Option<(i64, String)>,
    found: Vec<Hole>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Stop,
    /// Nothing beyond these.
    Planned(Vec<Hole>),
    Find,
}

impl Damage {
    pub(super) fn planned(skipped: &[Hole]) -> Self {
        let mode = if skipped.is_empty() { Mode::Stop } else { Mode::Planned(skipped.to_vec()) };
        Self { mode, ..Self::default() }
    }

    pub(super) fn finding() -> Self {
        Self { mode: Mode::Find, ..Self::default() }
    }

    pub(super) fn into_found(self) -> Vec<Hole> {
        self.found
    }

    pub(super) fn is_passed_over(&self, error: &Error) -> bool {
        self.mode != Mode::Stop && is_damage(error)
    }

    /// Nothing from `offset` on is to be had.
    pub(super) fn begins(&mut self, offset: i64, why: &Error) {
        self.open.get_or_insert_with(|| (offset, why.to_string()));
    }

    /// There is something again at `offset`, or offsets that are gone anyway end there.
    pub(super) fn ends(&mut self, offset: i64) -> Result<()> {
        let Some((first_offset, why)) = self.open.take() else { return Ok(()) };
        if offset <= first_offset {
            return Ok(());
        }
        if let Mode::Planned(planned) = &self.mode
            && !planned.iter().any(|hole| hole.first_offset <= first_offset && offset <= hole.end_offset)
        {
            let expected = "what the plan passes over, and no more";
            let found =
                format!("offsets {first_offset} to {} that don't hold either", offset.saturating_sub(1));
            return Err(Error::unexpected(why, expected, found));
        }
        self.found.push(Hole { first_offset, end_offset: offset, why });
        Ok(())
    }
}

/// Whether an object is damaged or gone.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Archive(error) if error.is_damage())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrupt() -> Error {
        Error::Archive(varve_archive::Error::Corrupt {
            object: "0.varve".to_owned(),
            expected: "one".to_owned(),
            found: "another".to_owned(),
        })
    }

    #[test]
    fn nothing_is_passed_over_unless_it_is_wanted() {
        assert!(!Damage::planned(&[]).is_passed_over(&corrupt()));
        assert!(Damage::finding().is_passed_over(&corrupt()));
        assert!(!Damage::finding().is_passed_over(&Error::refused("a", "b")));
    }

    #[test]
    fn a_hole_goes_from_what_held_to_what_holds() {
        let mut damage = Damage::finding();
        damage.ends(5).unwrap();
        damage.begins(10, &corrupt());
        damage.begins(12, &corrupt());
        damage.ends(20).unwrap();
        damage.begins(30, &corrupt());
        damage.ends(30).unwrap();
        let found = damage.into_found();
        assert_eq!(found.iter().map(|h| (h.first_offset, h.end_offset)).collect::<Vec<_>>(), [(10, 20)]);
        assert!(found[0].why.contains("0.varve"));
    }

    #[test]
    fn what_the_plan_does_not_know_of_is_an_error() {
        let planned = [Hole { first_offset: 10, end_offset: 20, why: "so".to_owned() }];
        let between = |first, end| {
            let mut damage = Damage::planned(&planned);
            damage.begins(first, &corrupt());
            damage.ends(end)
        };
        assert!(between(10, 20).is_ok() && between(13, 15).is_ok() && between(30, 30).is_ok());
        for (first, end) in [(9, 20), (10, 21), (30, 31)] {
            let error = between(first, end).unwrap_err().to_string();
            assert!(error.contains("0.varve") && error.contains("the plan"), "{error}");
        }
    }
}
