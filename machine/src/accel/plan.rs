//! Which accelerators a machine has one after the other.

use std::str::FromStr;
use std::time::Duration;

use super::{AccelKind, is_split};

/// When a machine changes its accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When so many instructions are retired.
    Instructions(u64),
    /// So long after power-on, by the guest's clock.
    Time(Duration),
}

/// A change of the accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Moment,
    /// To what.
    pub kind: AccelKind,
}

/// The accelerator that a machine begins with, and those that follow, written as
/// `jit,then=kvm@4000000000,then=jit@2.5s`: a number of instructions, or a time in seconds. With
/// `kernel-irqchip=split`, KVM has the local APIC whenever it has the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccelPlan {
    /// The first.
    pub first: AccelKind,
    /// The others, in this order.
    pub changes: Vec<Change>,
    /// [`EngineSpec::kernel_irqchip`](super::EngineSpec::kernel_irqchip).
    pub kernel_irqchip: bool,
}

impl From<AccelKind> for AccelPlan {
    fn from(first: AccelKind) -> Self {
        Self { first, changes: Vec::new(), kernel_irqchip: false }
    }
}

impl FromStr for AccelPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let mut plan = Self::from(AccelKind::by_name(words.next().unwrap_or_default())?);
        for word in words {
            if let Some(value) = word.strip_prefix("kernel-irqchip=") {
                plan.kernel_irqchip = is_split(value)?;
                continue;
            }
            let change = word.strip_prefix("then=").and_then(|change| change.split_once('@'));
            let (name, at) = change.ok_or_else(|| {
                format!("{word:?} is neither then=ENGINE@WHEN nor kernel-irqchip=split")
            })?;
            let at = moment(at).ok_or_else(|| {
                format!("{at:?} is no moment: give a number of instructions, or seconds as in 2.5s")
            })?;
            let before = plan.changes.last().map_or(plan.first, |change| change.kind);
            if before == AccelKind::Kvm && matches!(at, Moment::Instructions(_)) {
                return Err(
                    "KVM does not count instructions: say when in seconds, as in @2s".into()
                );
            }
            plan.changes.push(Change { at, kind: AccelKind::by_name(name)? });
        }
        if plan.kernel_irqchip && !plan.has(AccelKind::Kvm) {
            return Err("kernel-irqchip=split is for kvm".into());
        }
        Ok(plan)
    }
}

fn moment(text: &str) -> Option<Moment> {
    match text.strip_suffix('s') {
        Some(seconds) => {
            let seconds: f64 = seconds.parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok().map(Moment::Time)
        }
        None => text.parse().ok().map(Moment::Instructions),
    }
}

impl AccelPlan {
    /// Whether any of the accelerators is `kind`.
    pub fn has(&self, kind: AccelKind) -> bool {
        self.first == kind || self.changes.iter().any(|change| change.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_in_order() {
        let plan: AccelPlan = "jit,then=kvm@4000,then=interp@2.5s".parse().expect("a plan");
        let changes = [
            Change { at: Moment::Instructions(4000), kind: AccelKind::Kvm },
            Change { at: Moment::Time(Duration::from_millis(2500)), kind: AccelKind::Interp },
        ];
        let expected = AccelPlan { changes: changes.to_vec(), ..AccelKind::Jit.into() };
        assert_eq!(plan, expected);
        assert!(plan.has(AccelKind::Kvm) && plan.has(AccelKind::Jit));
        assert_eq!("kvm".parse(), Ok(AccelPlan::from(AccelKind::Kvm)));
        let split: AccelPlan = "jit,kernel-irqchip=split,then=kvm@4000".parse().expect("a plan");
        let changes = changes[..1].to_vec();
        assert_eq!(split, AccelPlan { first: AccelKind::Jit, changes, kernel_irqchip: true });
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            "",
            "tcg",
            "jit,kvm",
            "jit,then=kvm",
            "jit,then=tcg@1",
            "jit,then=kvm@soon",
            "jit,then=kvm@-1s",
            "kvm,then=jit@1000",
            "jit,then=kvm@1000,then=jit@2000",
            "jit,kernel-irqchip=split",
            "kvm,kernel-irqchip=on",
        ] {
            assert!(wrong.parse::<AccelPlan>().is_err(), "{wrong:?}");
        }
    }
}
