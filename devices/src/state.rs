//! What every chip's snapshot shares.

use serde::{Deserialize, Serialize};

/// Declares a chip's `Saved` type and its `saved` and `restore`. The chip is destructured without
/// `..`, so a field that is neither saved nor named as `wiring` (what the machine chose when it
/// built the chip, which is not state) does not compile.
macro_rules! saved_state {
    (
        $(#[$doc:meta])*
        $saved:ident of $chip:ident { $($field:ident: $ty:ty),+ $(,)? }
        $(wiring { $($fixed:ident),+ })?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $saved {
            $($field: $ty),+
        }

        impl $chip {
            /// The chip's state, for a snapshot.
            pub fn saved(&self) -> $saved {
                let Self { $($field,)+ $($($fixed: _),+)? } = self;
                $saved { $($field: Clone::clone($field)),+ }
            }

            /// Puts the chip into a state that `saved` returned.
            pub fn restore(&mut self, saved: $saved) {
                let $saved { $($field),+ } = saved;
                $(self.$field = $field;)+
            }
        }
    };
}

/// A block of byte registers. Serde knows arrays up to 32 elements only; a snapshot of another
/// length is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Bytes<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> From<Bytes<N>> for Vec<u8> {
    fn from(bytes: Bytes<N>) -> Self {
        bytes.0.to_vec()
    }
}

impl<const N: usize> TryFrom<Vec<u8>> for Bytes<N> {
    type Error = String;

    fn try_from(bytes: Vec<u8>) -> Result<Self, String> {
        let length = bytes.len();
        bytes.try_into().map(Self).map_err(|_| format!("{length} bytes where {N} are expected"))
    }
}
