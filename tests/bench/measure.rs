//! How an operation is timed, and what it allocates counted.
//!
//! An operation runs in batches that each take long enough for the clock; the time is the median of the batches, so that
//! what else the machine does now and then does not count. Dropping the result belongs to the operation.
//!
//! The allocator is the system's behind counters that all threads share: every allocation costs some nanoseconds more
//! than in the gateway. The row of [`add`] says what one costs here.

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Batches of which the median counts.
const BATCHES: usize = 11;
/// How long a batch takes at least.
const BATCH: Duration = Duration::from_millis(10);

/// What one run of an operation costs.
pub(crate) struct Cost {
    pub(crate) nanoseconds: f64,
    /// Calls to the allocator that ask for memory: new blocks, and blocks that are to have another size.
    pub(crate) allocations: f64,
    /// Bytes of new blocks, and by which blocks grew.
    pub(crate) bytes: f64,
}

/// The operations, in the order of the table.
#[derive(Default)]
pub(crate) struct Operations(Vec<Operation>);

/// Something that is measured.
pub(crate) struct Operation {
    pub(crate) name: String,
    run: Box<dyn Run>,
}

impl Operations {
    /// Adds an operation; `holds` tells from a result whether it did what it is named for.
    pub(crate) fn add<T>(
        &mut self,
        name: impl Into<String>,
        operation: impl Fn() -> T + 'static,
        holds: impl Fn(&T) -> bool + 'static,
    ) {
        self.0.push(Operation { name: name.into(), run: Box::new(Checked { operation, holds }) });
    }
}

impl IntoIterator for Operations {
    type Item = Operation;
    type IntoIter = std::vec::IntoIter<Operation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Operation {
    /// Runs it once; whether it did what it says.
    pub(crate) fn holds(&self) -> bool {
        self.run.holds()
    }

    /// Runs it as often as it takes to know what it costs.
    pub(crate) fn measure(&self) -> Cost {
        let times = self.times();
        let counters = Region::new(ALLOCATOR);
        let mut batches = [(); BATCHES].map(|()| self.time(times));
        let counted = counters.change();
        batches.sort_unstable();
        let median = batches.get(BATCHES / 2).copied().unwrap_or_default();
        let runs = times as f64 * BATCHES as f64;
        Cost {
            nanoseconds: median.as_nanos() as f64 / times as f64,
            allocations: (counted.allocations + counted.reallocations) as f64 / runs,
            bytes: counted.bytes_allocated as f64 / runs,
        }
    }

    /// How many runs fill a batch; finding out warms up what is measured.
    fn times(&self) -> u64 {
        let mut times = 1;
        while self.time(times) < BATCH {
            times *= 2;
        }
        times
    }

    fn time(&self, times: u64) -> Duration {
        let begun = Instant::now();
        self.run.repeat(times);
        begun.elapsed()
    }
}

/// An operation whatever its result is. One call runs a whole batch, so that calling it costs nothing.
trait Run {
    fn holds(&self) -> bool;
    fn repeat(&self, times: u64);
}

struct Checked<O, H> {
    operation: O,
    holds: H,
}

impl<T, O: Fn() -> T, H: Fn(&T) -> bool> Run for Checked<O, H> {
    fn holds(&self) -> bool {
        (self.holds)(&(self.operation)())
    }

    fn repeat(&self, times: u64) {
        for _ in 0..times {
            black_box((self.operation)());
        }
    }
}

/// Adds what an allocation costs by itself, to be taken off in thought.
pub(crate) fn add(operations: &mut Operations) {
    operations.add(
        "one allocation of 64 bytes",
        || Vec::<u8>::with_capacity(black_box(64)),
        |block| block.capacity() == 64,
    );
}
