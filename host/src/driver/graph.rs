//! Graphs: work captured once and launched as a whole.

use std::ptr;
use std::sync::Arc;

use cust_raw::{CUgraph, CUgraphExec, CUgraphExecUpdateResult, CUgraphNode, CUstreamCaptureMode};

use super::device::CudaDevice;
use super::error::{DriverError, code};
use super::memory::Allocation;
use super::raw::driver_call;
use super::stream::{Kept, Stream};

/// Work captured from a stream. It keeps alive the buffers and modules that the work names.
pub struct Graph {
    raw: CUgraph,
    device: CudaDevice,
    needs: Arc<Needs>,
}

/// A graph made ready to launch.
pub struct GraphExec {
    raw: CUgraphExec,
    device: CudaDevice,
    needs: Arc<Needs>,
}

/// What the nodes of a graph name.
struct Needs {
    /// The home streams of its buffers, each once.
    homes: Vec<Stream>,
    _kept: Vec<Kept>,
}

// SAFETY: the handles may be used from any thread, from one at a time.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Send for GraphExec {}

impl Graph {
    /// Runs `work`, which queues on the stream it is given, and captures what it queued instead of running it.
    ///
    /// Nothing in `work` may wait for the GPU. An error or a panic of `work` ends the capture, and the stream is as it
    /// was before.
    ///
    /// # Errors
    /// What `work` answers, a capture already in progress, work that cannot be captured, or a failed call.
    pub fn capture<E: From<DriverError>>(
        stream: &Stream,
        work: impl FnOnce(&Stream) -> Result<(), E>,
    ) -> Result<Self, E> {
        let capture = Capture::begin(stream)?;
        // On an error the drop of `capture` ends the capture and destroys what it has.
        work(stream)?;
        Ok(capture.finish()?)
    }

    /// Nodes of the graph.
    ///
    /// # Errors
    /// A failed call.
    pub fn node_count(&self) -> Result<usize, DriverError> {
        let mut count = 0;
        // SAFETY: the graph is live; without a place for nodes the driver only counts.
        unsafe { driver_call!(cuGraphGetNodes(self.raw, ptr::null_mut(), &mut count)) }?;
        Ok(count)
    }

    /// Makes the graph ready to launch.
    ///
    /// # Errors
    /// A failed call.
    pub fn instantiate(&self) -> Result<GraphExec, DriverError> {
        self.device.bind()?;
        let mut raw: CUgraphExec = ptr::null_mut();
        // SAFETY: the graph is live and `raw` is writable.
        unsafe { driver_call!(cuGraphInstantiateWithFlags(&mut raw, self.raw, 0)) }?;
        Ok(GraphExec { raw, device: self.device.clone(), needs: Arc::clone(&self.needs) })
    }
}

impl GraphExec {
    /// Queues the whole graph on `stream`, ordered with the home streams of its buffers.
    ///
    /// # Errors
    /// A stream of another GPU, a capture on it, or a failed call.
    pub fn launch(&self, stream: &Stream) -> Result<(), DriverError> {
        stream.same_device("the graph", &self.device)?;
        stream.refuse_capture("launching a graph")?;
        for home in &self.needs.homes {
            stream.wait_stream(home)?;
        }
        self.device.bind()?;
        // SAFETY: graph and stream are live and of one context; `needs` holds what the nodes name.
        unsafe { driver_call!(cuGraphLaunch(self.raw, stream.raw())) }?;
        for home in &self.needs.homes {
            home.wait_stream(stream)?;
        }
        Ok(())
    }

    /// Takes over the parameters of `graph`, which has the same nodes; cheaper than a new instance.
    ///
    /// # Errors
    /// [`DriverError::GraphUpdate`] where the nodes differ: this graph then is as it was. Or a failed call.
    pub fn update(&mut self, graph: &Graph) -> Result<(), DriverError> {
        self.device.bind()?;
        let mut node: CUgraphNode = ptr::null_mut();
        // An integer: a newer driver has reasons that the enum of `cust_raw` must not hold.
        let mut reason: i32 = 0;
        let reason_out: *mut CUgraphExecUpdateResult = ptr::from_mut(&mut reason).cast();
        // SAFETY: both graphs are live and both results writable; the C enum has the size of an `i32`.
        match unsafe { driver_call!(cuGraphExecUpdate(self.raw, graph.raw, &mut node, reason_out)) }
        {
            Ok(()) => {
                self.needs = Arc::clone(&graph.needs);
                Ok(())
            }
            Err(error) if error.code() == Some(code::GRAPH_UPDATE_FAILURE) => {
                Err(DriverError::GraphUpdate { reason })
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: this is the owner; instances do not need the graph.
            let _ = unsafe { driver_call!(cuGraphDestroy(self.raw)) };
        }
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: this is the owner; the driver lets a launch in flight end, and its buffers stay ordered with it.
            let _ = unsafe { driver_call!(cuGraphExecDestroy(self.raw)) };
        }
    }
}

impl Needs {
    fn new(mut kept: Vec<Kept>) -> Self {
        // A buffer or module is kept once for each use.
        kept.sort_unstable_by_key(|kept| Arc::as_ptr(kept).addr());
        kept.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let mut homes: Vec<Stream> = Vec::new();
        for kept in &kept {
            if let Some(allocation) = kept.downcast_ref::<Allocation>()
                && !homes.contains(&allocation.home)
            {
                homes.push(allocation.home.clone());
            }
        }
        Self { homes, _kept: kept }
    }
}

/// A capture in progress; dropping it ends it.
struct Capture<'stream> {
    stream: &'stream Stream,
}

impl<'stream> Capture<'stream> {
    fn begin(stream: &'stream Stream) -> Result<Self, DriverError> {
        stream.refuse_capture("beginning a capture")?;
        stream.device().bind()?;
        // Relaxed: a pool may take memory from the driver during the capture.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        stream.device().quiet().begin_capture();
        // SAFETY: the stream is live and its context current.
        let begun = unsafe { driver_call!(cuStreamBeginCapture_v2(stream.raw(), mode)) };
        if let Err(error) = begun {
            stream.device().quiet().end_capture();
            return Err(error);
        }
        stream.set_capturing(true);
        Ok(Self { stream })
    }

    fn finish(self) -> Result<Graph, DriverError> {
        let stream = self.stream;
        std::mem::forget(self);
        end(stream)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // The graph of the failed capture goes at once, and an invalidated capture has none.
        let _ = end(self.stream);
    }
}

fn end(stream: &Stream) -> Result<Graph, DriverError> {
    let needs = Arc::new(Needs::new(stream.set_capturing(false)));
    let device = stream.device();
    let mut raw: CUgraph = ptr::null_mut();
    let ended = device.bind().and_then(|()| {
        // SAFETY: the stream is live and was put into capture by `Capture::begin`; `raw` is writable.
        unsafe { driver_call!(cuStreamEndCapture(stream.raw(), &mut raw)) }
    });
    device.quiet().end_capture();
    ended?;
    Ok(Graph { raw, device: device.clone(), needs })
}
