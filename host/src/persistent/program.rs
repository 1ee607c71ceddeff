//! Recorded sequences of operations.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kasmina_types::Operation;
use kasmina_types::manifold::MAX_OPERATIONS;
use kasmina_types::tiles::manifold::{MANIFOLD_OPERATIONS, operation};

use super::error::PersistentError;
use super::shared::Shared;
use crate::buffer::ResidentUse;
use crate::driver::DriverError;
use crate::driver::recording::{RecordedLaunch, RecordedOn, Recording};
use crate::error::Error;

/// A sequence of operations that an executor carries out as one item, each after the one before it. Clones are the same
/// program.
///
/// It keeps the memory of the buffers that it was recorded with. Copying out of such a buffer, or launching on it, waits
/// until no item of the program is out.
#[derive(Clone)]
pub struct Program {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) name: String,
    pub(super) operations: Vec<Operation>,
    /// Blocks of an item.
    pub(super) blocks: u32,
    pub(super) buffers: Arc<ResidentUse>,
    /// Whose memory the operations name; none if they name none.
    on: Option<RecordedOn>,
    place: Mutex<Option<Place>>,
}

/// Where an executor's table has the operations.
struct Place {
    of: Weak<Shared>,
    first: u32,
    edition: u32,
    count: usize,
}

/// How a program makes its kernel fail, or its item be refused: for tests of what comes then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provoke {
    /// The item never ends; told to, the kernel leaves it.
    Hang,
    /// As `Hang` in one block of two, which waits for the other.
    Unmet,
    /// The item never ends, and nothing makes the kernel leave it.
    Deaf,
    /// The kernel traps.
    Trap,
    /// The item has an operation that the kernel lacks.
    UnknownOperation,
    /// The item's descriptor names more blocks than any group has.
    OutOfRange,
}

/// A launch of so many blocks is a single block's work, if its blocks do not wait for each other: they would meet at
/// barriers of the grid between operations, each of which costs more than the blocks bring.
const SMALL_GRID: u32 = 8;

impl Program {
    /// Of a recording, for an executor with these domains, whose largest group has so many blocks.
    pub(super) fn new(
        name: &str,
        recording: Recording,
        domains: u32,
        domain_names: impl Fn() -> String,
        largest: u32,
    ) -> Result<Self, PersistentError> {
        let Recording { launches, on, buffers } = recording;
        let program = || name.to_owned();
        if launches.is_empty() {
            return Err(PersistentError::Empty { program: program() });
        }
        if launches.len() > MAX_OPERATIONS as usize {
            let free = MAX_OPERATIONS as usize;
            return Err(PersistentError::TableFull {
                program: program(),
                needed: launches.len(),
                free,
            });
        }
        let mut blocks = 1;
        for launch in &launches {
            if launch.cooperative {
                if launch.grid > largest {
                    let (kernel, needed) = (launch.kernel, launch.grid);
                    return Err(PersistentError::Blocks {
                        program: program(),
                        kernel,
                        needed,
                        group: largest,
                    });
                }
                blocks = blocks.max(launch.grid);
            } else if launch.grid > SMALL_GRID {
                blocks = blocks.max(launch.grid.min(largest));
            }
        }
        let operations = launches
            .into_iter()
            .map(|launch| {
                let RecordedLaunch { kernel, grid, cooperative, operation } = launch;
                let known = MANIFOLD_OPERATIONS.iter().find(|known| {
                    known.entry == kernel && (known.domains == 0 || known.domains & domains != 0)
                });
                let Some(known) = known else {
                    let domains = domain_names();
                    return Err(PersistentError::Operation { program: program(), kernel, domains });
                };
                let blocks = if cooperative { grid } else { grid.clamp(1, blocks) };
                Ok(Operation { code: known.code, blocks, ..operation })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self::made(name, operations, blocks, buffers, on))
    }

    /// Of operations that name no memory of a device's context.
    pub(super) fn of_operations(
        name: &str,
        operations: Vec<Operation>,
        blocks: u32,
        buffers: Arc<ResidentUse>,
    ) -> Self {
        Self::made(name, operations, blocks, buffers, None)
    }

    fn made(
        name: &str,
        operations: Vec<Operation>,
        blocks: u32,
        buffers: Arc<ResidentUse>,
        on: Option<RecordedOn>,
    ) -> Self {
        let name = name.to_owned();
        let inner = Inner { name, operations, blocks, buffers, on, place: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// A program that provokes a failure, for tests of an application's recovery.
    pub fn provoking(provoke: Provoke) -> Self {
        let (name, code, blocks) = match provoke {
            Provoke::Hang => ("hang", operation::HANG, 1),
            Provoke::Unmet => ("unmet", operation::HANG, 2),
            Provoke::Deaf => ("deaf", operation::DEAF, 1),
            Provoke::Trap => ("trap", operation::TRAP, 1),
            Provoke::UnknownOperation => ("unknown operation", u32::MAX, 1),
            Provoke::OutOfRange => ("out of range", operation::EMPTY, u16::MAX.into()),
        };
        let operation = Operation { code, blocks: 1, ..bytemuck::Zeroable::zeroed() };
        Self::of_operations(name, vec![operation], blocks, Arc::default())
    }

    /// The name it was recorded under.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Operations.
    pub fn len(&self) -> usize {
        self.inner.operations.len()
    }

    /// Whether there are none: never so of a recorded program.
    pub fn is_empty(&self) -> bool {
        self.inner.operations.is_empty()
    }

    /// The operations' numbers, of [`operation`], in their order.
    pub fn codes(&self) -> impl Iterator<Item = u32> + '_ {
        self.inner.operations.iter().map(|operation| operation.code)
    }

    /// Blocks that share an item of it.
    pub fn blocks(&self) -> u32 {
        self.inner.blocks
    }

    /// The first operation's place in the executor's table, which gets them if it has not, and the edition of what is there.
    /// `on` is the executor's device.
    ///
    /// # Errors
    /// A program of another executor, one whose memory went with a lost context, or no room.
    pub(super) fn place_in(
        &self,
        shared: &Arc<Shared>,
        on: impl FnOnce() -> Option<RecordedOn>,
    ) -> Result<(u32, u32), Error> {
        if self.inner.buffers.own(shared.owner).is_err() {
            return Err(PersistentError::Foreign { what: "program" }.into());
        }
        let mut place = self.inner.place();
        if let Some(place) = &*place
            && Weak::ptr_eq(&place.of, &Arc::downgrade(shared))
        {
            return Ok((place.first, place.edition));
        }
        // An executor in the place of one that failed: nothing of that is out any more. It has that one's settings, hence
        // its domains and blocks, but another context if that one's was lost.
        if let Some(RecordedOn::Cuda(device)) = &self.inner.on
            && self.inner.on != on()
        {
            return Err(DriverError::ContextLost { device: device.info().name.clone() }.into());
        }
        let (first, edition) = shared.put_operations(&self.inner.name, &self.inner.operations)?;
        let (of, count) = (Arc::downgrade(shared), self.inner.operations.len());
        if let Some(old) = place.replace(Place { of, first, edition, count }) {
            old.free();
        }
        Ok((first, edition))
    }
}

impl Inner {
    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn free(self) {
        if let Some(shared) = self.of.upgrade() {
            shared.free_operations(self.first, self.count);
        }
    }
}

/// The last clone is gone, and no item is out: items hold one.
impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(place) = self.place().take() {
            place.free();
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.inner.name)
            .field("operations", &self.len())
            .field("blocks", &self.blocks())
            .finish()
    }
}
