//! Layers one after the other, and what is kept of a forward pass for the backward pass.

use super::error::LayerError;
use super::{KasminaLayer, LayerElement};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::TelemetryBuffers;

/// Which layers' inputs are kept for the backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checkpointing {
    /// All of them.
    #[default]
    KeepAll,
    /// That of every n-th layer; those between are computed again when the backward pass comes to them,
    /// n − 1 at a time. The gradients are the same bits.
    Every(usize),
}

/// Layers of one width, one after the other.
///
/// ```
/// use kasmina::kasmina::{Checkpointing, KasminaLayer, LayerStack};
/// use kasmina::{Buffer, Device};
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let layer = |id| KasminaLayer::<f32>::builder(2, 8).layer_id(id).build(&Device::Cpu);
/// let layers = (0..9).map(layer).collect::<Result<_, _>>()?;
/// let mut stack = LayerStack::with_checkpointing(layers, Checkpointing::Every(3))?;
/// let x = Buffer::from_slice(&Device::Cpu, &[1.0_f32; 16])?;
/// stack.forward(&x)?;
/// let grad_input = stack.backward(&x, &x)?;
/// assert_eq!(grad_input.to_vec()?, [1.0; 16]);
/// # Ok(())
/// # }
/// ```
pub struct LayerStack<T: LayerElement> {
    layers: Vec<KasminaLayer<T>>,
    /// Layers of a segment, whose first input is kept.
    segment: usize,
    memory: Option<StackMemory<T>>,
    /// The batch size of the last forward pass, if it succeeded.
    ready: Option<usize>,
}

/// The buffers for one batch size.
struct StackMemory<T: LayerElement> {
    elements: usize,
    places: Places<T>,
    gradients: [Buffer<T>; 2],
    /// For each layer that is computed again, which the last of a segment is not.
    again: Vec<Option<Again>>,
}

/// Where the layers' inputs are: that of layer 0 is the caller's, those of the other segments' first layers
/// are in `kept`, and the rest are in `between`, of one segment at a time.
struct Places<T: LayerElement> {
    segment: usize,
    kept: Vec<Buffer<T>>,
    between: Vec<Buffer<T>>,
    output: Buffer<T>,
}

struct Again {
    /// The adaptive mode's flags as the forward pass found them.
    flags: Buffer<u8>,
    telemetry: TelemetryBuffers,
}

impl<T: LayerElement> LayerStack<T> {
    /// A stack that keeps every input; or, if each layer is in `memory_efficient_mode`, that of every
    /// ⌈√n⌉-th of n layers.
    ///
    /// # Errors
    /// No layers, or layers of different widths or devices.
    pub fn new(layers: Vec<KasminaLayer<T>>) -> Result<Self, Error> {
        let frugal = layers.iter().all(|layer| layer.config.memory_efficient_mode);
        let root = (layers.len() as f64).sqrt().ceil() as usize;
        let mode = if frugal { Checkpointing::Every(root.max(1)) } else { Checkpointing::KeepAll };
        Self::with_checkpointing(layers, mode)
    }

    /// A stack with a choice of what is kept.
    ///
    /// # Errors
    /// As [`Self::new`]; `Every(0)`.
    pub fn with_checkpointing(
        layers: Vec<KasminaLayer<T>>,
        checkpointing: Checkpointing,
    ) -> Result<Self, Error> {
        let wrong = |why| Err(LayerError::Stack { why }.into());
        let Some(first) = layers.first() else { return wrong("it has no layers".into()) };
        for (index, layer) in layers.iter().enumerate() {
            let (expected, got) = (first.config.hidden_dim, layer.config.hidden_dim);
            if expected != got {
                return wrong(format!("layer {index} has {got} columns, layer 0 has {expected}"));
            }
            layer.state.alpha.check_device("LayerStack", "a layer", &first.device)?;
        }
        let segment = match checkpointing {
            Checkpointing::KeepAll => 1,
            Checkpointing::Every(0) => return wrong("`Every(0)` keeps nothing; at least 1".into()),
            Checkpointing::Every(count) => count.min(layers.len()),
        };
        Ok(Self { layers, segment, memory: None, ready: None })
    }

    /// The layers.
    pub fn layers(&self) -> &[KasminaLayer<T>] {
        &self.layers
    }

    /// The layers, to command. A state that changes between a forward and its backward pass changes what
    /// is computed again.
    pub fn layers_mut(&mut self) -> &mut [KasminaLayer<T>] {
        &mut self.layers
    }

    /// The output of the last layer for `x`, `[batch, hidden_dim]`, in a buffer of the stack.
    ///
    /// # Errors
    /// As [`KasminaLayer::forward`].
    pub fn forward(&mut self, x: &Buffer<T>) -> Result<&Buffer<T>, Error> {
        self.ready = None;
        let batch = self.layers[0].batch_of("LayerStack::forward", x)?;
        self.prepare(x.len())?;
        let memory = self.memory.as_mut().expect("just prepared");
        let last = self.layers.len() - 1;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            if let Some(again) = &mut memory.again[index] {
                again.flags.copy_from_buffer(layer.flags())?;
            }
            let (input, output) = memory.places.ends(index, last, x);
            layer.forward_into(input, output)?;
        }
        self.ready = Some(batch);
        Ok(&memory.places.output)
    }

    /// The gradient at the stack's input, from the input of the last forward pass and the gradient at its
    /// output; the parameters' gradients are in the layers.
    ///
    /// # Errors
    /// As [`KasminaLayer::backward`]; no forward pass of this batch size before.
    pub fn backward(
        &mut self,
        x: &Buffer<T>,
        grad_output: &Buffer<T>,
    ) -> Result<&Buffer<T>, Error> {
        let batch = self.layers[0].batch_of("LayerStack::backward", grad_output)?;
        let same = self.layers[0].batch_of("LayerStack::backward", x)? == batch;
        let (true, Some(memory)) = (same && self.ready == Some(batch), &mut self.memory) else {
            return Err(LayerError::NoForward { batch }.into());
        };
        let last = self.layers.len() - 1;
        let last_segment = last / self.segment * self.segment;
        // Where the gradient at the current layer's output is; none for the caller's.
        let mut at = None;
        for index in (0..=last).rev() {
            let start = index / self.segment * self.segment;
            let ends_segment = index == (start + self.segment - 1).min(last);
            // Those of the last segment are still there from the forward pass.
            if ends_segment && start != last_segment {
                for again in start..index {
                    let (input, output) = memory.places.between_ends(again, x);
                    let Again { flags, telemetry } =
                        memory.again[again].as_mut().expect("made with the memory");
                    self.layers[again].recompute(input, output, flags, telemetry)?;
                }
            }
            let [one, other] = &mut memory.gradients;
            let (from, to) = match at {
                None => (grad_output, one),
                Some(0) => (&*one, other),
                Some(_) => (&*other, one),
            };
            let input = memory.places.input(index, x);
            self.layers[index].backward_into(input, from, to)?;
            at = Some(at.map_or(0, |at: usize| 1 - at));
        }
        Ok(&memory.gradients[at.expect("a stack has layers")])
    }

    /// Makes the buffers for inputs of `elements`, unless they are there.
    fn prepare(&mut self, elements: usize) -> Result<(), Error> {
        if self.memory.as_ref().is_some_and(|memory| memory.elements == elements) {
            return Ok(());
        }
        // The old ones go first, so that the new ones can take their memory.
        self.memory = None;
        let (layers, segment) = (&self.layers, self.segment);
        let device = &layers[0].device;
        let buffers = |count| -> Result<Vec<_>, Error> {
            (0..count).map(|_| Buffer::zeroed(device, elements)).collect()
        };
        let again = layers.iter().enumerate().map(|(index, layer)| {
            let ends_segment = (index + 1) % segment == 0 || index + 1 == layers.len();
            (!ends_segment).then(|| Again::new(device, layer)).transpose()
        });
        self.memory = Some(StackMemory {
            elements,
            places: Places {
                segment,
                kept: buffers((layers.len() - 1) / segment)?,
                between: buffers(segment - 1)?,
                output: Buffer::zeroed(device, elements)?,
            },
            gradients: [Buffer::zeroed(device, elements)?, Buffer::zeroed(device, elements)?],
            again: again.collect::<Result<_, _>>()?,
        });
        Ok(())
    }
}

impl Again {
    fn new<T: LayerElement>(device: &Device, layer: &KasminaLayer<T>) -> Result<Self, Error> {
        let seeds = layer.config.num_seeds;
        let telemetry = TelemetryBuffers::new(device, seeds)?;
        Ok(Self { flags: Buffer::zeroed(device, seeds)?, telemetry })
    }
}

impl<T: LayerElement> Places<T> {
    fn input<'a>(&'a self, index: usize, x: &'a Buffer<T>) -> &'a Buffer<T> {
        input_of(&self.kept, &self.between, self.segment, index, x)
    }

    /// Input and output of a layer.
    fn ends<'a>(
        &'a mut self,
        index: usize,
        last: usize,
        x: &'a Buffer<T>,
    ) -> (&'a Buffer<T>, &'a mut Buffer<T>) {
        let segment = self.segment;
        if index == last {
            return (input_of(&self.kept, &self.between, segment, index, x), &mut self.output);
        }
        if !(index + 1).is_multiple_of(segment) {
            return self.between_ends(index, x);
        }
        let (before, after) = self.kept.split_at_mut(index / segment);
        (input_of(before, &self.between, segment, index, x), &mut after[0])
    }

    /// Input and output of a layer that is not the last of its segment.
    fn between_ends<'a>(
        &'a mut self,
        index: usize,
        x: &'a Buffer<T>,
    ) -> (&'a Buffer<T>, &'a mut Buffer<T>) {
        let (before, after) = self.between.split_at_mut(index % self.segment);
        (input_of(&self.kept, before, self.segment, index, x), &mut after[0])
    }
}

/// The input of layer `index`.
fn input_of<'a, T: LayerElement>(
    kept: &'a [Buffer<T>],
    between: &'a [Buffer<T>],
    segment: usize,
    index: usize,
    x: &'a Buffer<T>,
) -> &'a Buffer<T> {
    match (index / segment, index % segment) {
        (0, 0) => x,
        (number, 0) => &kept[number - 1],
        (_, within) => &between[within - 1],
    }
}
