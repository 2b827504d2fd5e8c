//! How a PC reports x87 errors: FERR# of the processor, IRQ 13, and port F0h with IGNNE#
//! (SDM vol. 1, appendix D, "Recommended External Hardware to Support the MS-DOS Compatibility
//! Sub-mode"; PIIX3 datasheet 2.5.5.1, "Coprocessor error register"). Two flip-flops:
//!
//! - FERR# going active sets the interrupt, a write to the port clears it;
//! - a write to the port sets IGNNE# if FERR# is active, FERR# going inactive clears it.

use crate::line::IrqLine;
use crate::time::VmTime;

/// The coprocessor-error logic of the ISA bridge.
#[derive(Debug, Default)]
pub struct CoprocessorError {
    /// FERR# is active.
    ferr: bool,
    /// IGNNE# is active.
    ignne: bool,
    /// The interrupt request.
    pub irq: IrqLine,
}

saved_state! {
    /// The state of a [`CoprocessorError`].
    CoprocessorErrorSaved of CoprocessorError { ferr: bool, ignne: bool, irq: IrqLine }
}

impl CoprocessorError {
    /// The power-on state.
    pub fn reset(&mut self) {
        self.ferr = false;
        self.ignne = false;
        self.irq.set(false);
    }

    /// The processor drives FERR#.
    pub fn set_ferr(&mut self, active: bool) {
        if active && !self.ferr {
            self.irq.set(true);
        }
        self.ferr = active;
        self.ignne &= active;
    }

    /// IGNNE#: the processor goes on despite its error.
    pub fn ignne(&self) -> bool {
        self.ignne
    }

    /// Port F0h: any value.
    pub fn write(&mut self, _now: VmTime, _value: u8) {
        self.irq.set(false);
        self.ignne = self.ferr;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime::ZERO;

    fn levels(chip: &CoprocessorError) -> (bool, bool) {
        (chip.irq.level(), chip.ignne())
    }

    #[test]
    fn an_error_interrupts_until_the_port_is_written() {
        let mut chip = CoprocessorError::default();
        chip.set_ferr(true);
        assert_eq!(levels(&chip), (true, false));
        chip.write(NOW, 0);
        assert_eq!(levels(&chip), (false, true), "the handler may use the coprocessor");
        chip.set_ferr(true);
        assert_eq!(levels(&chip), (false, true), "the same error");
        chip.set_ferr(false);
        assert_eq!(levels(&chip), (false, false), "FNCLEX");
        chip.set_ferr(true);
        assert_eq!(levels(&chip), (true, false), "the next error");
    }

    #[test]
    fn the_interrupt_stays_when_its_cause_has_gone() {
        let mut chip = CoprocessorError::default();
        chip.set_ferr(true);
        chip.set_ferr(false);
        assert_eq!(levels(&chip), (true, false));
        chip.write(NOW, 0);
        assert_eq!(levels(&chip), (false, false), "IGNNE# is gated by FERR#");
    }

    #[test]
    fn reset_clears_both() {
        let mut chip = CoprocessorError::default();
        chip.set_ferr(true);
        chip.write(NOW, 0);
        chip.reset();
        chip.write(NOW, 0);
        assert_eq!(levels(&chip), (false, false));
    }
}
