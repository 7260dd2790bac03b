//! Dice with a seed: good enough to choose faults, and the same everywhere.

/// Vigna's SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same way for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.roll() % sides.max(1)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A small number below `sides`.
    pub fn small(&mut self, sides: u16) -> u16 {
        u16::try_from(self.below(sides.into())).unwrap_or(0)
    }

    /// One of them, if there are any.
    pub fn choose<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(among.len()).ok()?;
        let index = usize::try_from(self.below(count)).ok()?;
        among.get(index)
    }

    /// One of them, each as often as its weight says.
    pub fn weigh<T: Copy>(&mut self, among: &[(T, u32)]) -> Option<T> {
        let total = among.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = self.below(total);
        for (what, weight) in among {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return Some(*what),
            }
        }
        None
    }
}
