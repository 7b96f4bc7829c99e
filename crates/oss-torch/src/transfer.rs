//! Copies between the host and a GPU that wait for as little as possible.
//!
//! libtorch's ordinary copy to a GPU waits until the GPU has finished everything queued before. From pinned memory the
//! copy is queued like any other operation, and libtorch does not reuse the memory until it is done.

use std::ffi::c_char;
use std::ptr::null_mut;

use anyhow::Result;
use tch::{Device, Kind, Tensor, kind};
use torch_sys::C_tensor;

use super::bridge::checked;

unsafe extern "C" {
    fn oss_pin_memory(tensor: *const C_tensor, pinned: *mut *mut C_tensor) -> *mut c_char;
    fn oss_copy_async(target: *const C_tensor, source: *const C_tensor) -> *mut c_char;
}

/// Copies `tensor`, which is in host memory, to pinned memory if it is going to a GPU; returns it unchanged if `device`
/// is the CPU.
///
/// # Errors
/// Fails if memory cannot be pinned.
pub fn pin_memory(tensor: &Tensor, device: Device) -> Result<Tensor> {
    if !device.is_cuda() {
        return Ok(tensor.shallow_clone());
    }
    let mut pinned = null_mut();
    // SAFETY: the input is a live borrowed Tensor; on success the result is a fresh heap tensor that we own.
    checked("pinning host memory", unsafe { oss_pin_memory(tensor.as_ptr(), &mut pinned) })?;
    // SAFETY: made by `new at::Tensor` in the call above and taken over exactly once.
    Ok(unsafe { Tensor::from_ptr(pinned) })
}

/// Moves `tensor` to `device`, unless it is already there. A copy from pinned memory is queued on the current stream.
pub fn to_device(tensor: &Tensor, device: Device) -> Tensor {
    tensor.to_device_(device, tensor.kind(), true, false)
}

/// Creates an `[n]` tensor of `numbers` on `device`. On a GPU the copy is queued on the current stream.
///
/// # Errors
/// As for [`pin_memory`].
pub fn upload<T: kind::Element>(numbers: &[T], device: Device) -> Result<Tensor> {
    Ok(to_device(&pin_memory(&Tensor::from_slice(numbers), device)?, device))
}

/// Copies `source` into `target`, which has the same shape. Between a GPU and pinned memory the copy is queued on the
/// current stream: the host may read `target` only after synchronizing with it.
///
/// # Errors
/// Fails if the shapes do not match.
pub fn copy_async(target: &Tensor, source: &Tensor) -> Result<()> {
    // SAFETY: both are live borrowed Tensors; libtorch checks shapes, and keeps pinned memory until the copy is done.
    checked("copying a tensor", unsafe { oss_copy_async(target.as_ptr(), source.as_ptr()) })
}

/// Moves tensors, which are all on one device, to host memory in a single copy that waits for everything queued before.
/// Tensors already in host memory are returned as they are.
pub fn fetch(tensors: &[&Tensor]) -> Vec<Tensor> {
    match tensors.iter().all(|tensor| tensor.device() == Device::Cpu) {
        true => tensors.iter().map(|tensor| tensor.shallow_clone()).collect(),
        false => fetch_joined(tensors),
    }
}

fn fetch_joined(tensors: &[&Tensor]) -> Vec<Tensor> {
    let of_bytes = |tensor: &&Tensor| tensor.flatten(0, -1).view_dtype(Kind::Uint8);
    let parts: Vec<Tensor> = tensors.iter().map(of_bytes).collect();
    let bytes = Tensor::cat(&parts, 0).to_device(Device::Cpu);
    let mut at = 0;
    let parts = parts.iter().map(|part| {
        let len = part.size()[0];
        at += len;
        // Each tensor starts at the alignment of its kind.
        bytes.narrow(0, at - len, len).copy()
    });
    parts.zip(tensors).map(|(part, tensor)| part.view_dtype(tensor.kind()).view_as(tensor)).collect()
}

/// Waits until `device` has finished all queued work.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_fetched_together_are_unchanged() {
        let cpu = Device::Cpu;
        let tensors = [
            Tensor::arange(3, (Kind::Float, cpu)),
            Tensor::from(0.1f64),
            Tensor::arange(6, (Kind::Int, cpu)).view([3, 2]).transpose(0, 1),
            Tensor::from_slice(&[f64::NAN, -1.0]),
        ];
        let borrowed: Vec<&Tensor> = tensors.iter().collect();
        for (seen, wanted) in fetch_joined(&borrowed).iter().zip(&tensors) {
            assert_eq!((seen.kind(), seen.size()), (wanted.kind(), wanted.size()));
            assert!(seen.isclose(wanted, 0.0, 0.0, true).all().int64_value(&[]) == 1, "{seen:?}");
        }
    }

    #[test]
    fn transfers_on_the_host_do_not_copy() {
        let tensor = Tensor::from_slice(&[1i64, 2, 3]);
        let same = |other: &Tensor| other.data_ptr() == tensor.data_ptr();
        assert!(same(&pin_memory(&tensor, Device::Cpu).unwrap()));
        assert!(same(&to_device(&tensor, Device::Cpu)));
        assert!(same(&fetch(&[&tensor])[0]));
        assert_eq!(upload(&[1i64, 2, 3], Device::Cpu).unwrap(), tensor);
        let target = tensor.zeros_like();
        copy_async(&target, &tensor).unwrap();
        assert_eq!(target, tensor);
    }
}
