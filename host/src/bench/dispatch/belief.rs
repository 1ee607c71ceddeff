//! A belief step of one model: a single small operation.

use std::sync::Arc;

use super::{
    Group, NO_GRAPHS, Subject, calls_of, executor, graph_call, item_call, launches_of, same, way,
};
use crate::bench::BenchError;
use crate::bench::active_inference::model;
use crate::device::Device;
use crate::error::Error;
use crate::information::active_inference::{ActiveInference, InferenceOptions};
use crate::persistent::Domains;

pub(super) const CASE: &str = "belief step";

/// States, and observations, of the model.
pub(super) const STATES: usize = 64;

/// The model on a device, its belief the prior.
pub(super) fn inference(device: &Device) -> Result<ActiveInference, Error> {
    ActiveInference::new(device, &[model(1, STATES, STATES)], InferenceOptions::default())
}

pub(super) fn group(device: &Device) -> Result<Group<'_>, BenchError> {
    let mut group = Group::default();
    let subject = |way, launches, call| Subject {
        device: device.name(),
        case: CASE,
        way,
        operations: 1,
        launches,
        executors: Vec::new(),
        call,
    };
    let mut called = inference(device)?;
    called.step()?;
    let expected = called.belief_arrays()?.0.into_raw_vec_and_offset().0;
    let check = |inference: &ActiveInference, what| {
        same(what, &inference.belief_arrays()?.0.into_raw_vec_and_offset().0, &expected)
    };
    let call: Box<dyn FnMut() -> Result<(), Error>> = Box::new(move || {
        called.step()?;
        device.synchronize()
    });
    group.subjects.push(subject(calls_of(device), launches_of(device, 1), call));
    match device {
        Device::Cuda(gpu) => {
            let mut captured = inference(device)?;
            let mut call = graph_call(gpu, || captured.step())?;
            call()?;
            check(&captured, "a belief step as a graph")?;
            group.subjects.push(subject(way::GRAPH, 1, call));
        }
        _ => group.lacks(CASE, way::GRAPH, NO_GRAPHS),
    }
    match executor(device, Domains::Information)? {
        Ok(executor) => {
            let mut recorded = inference(device)?;
            let mut call = item_call(&executor, "belief step", || recorded.step())?;
            call()?;
            check(&recorded, "a belief step as an item")?;
            let executors = vec![Arc::clone(&executor)];
            group.subjects.push(Subject { executors, ..subject(way::ITEM, 0, call) });
        }
        Err(reason) => group.lacks(CASE, way::ITEM, reason),
    }
    Ok(group)
}
