//! A tensor that is the only owner of its memory.

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::bytes::{Element, assert_kind, elements, elements_mut};

unsafe extern "C" {
    fn oss_is_unshared(tensor: *const C_tensor) -> bool;
}

/// A contiguous CPU tensor whose memory no other handle references, so that it lends slices as a `Vec` does. It lends
/// no handle: [`Self::into_tensor`] consumes it.
///
/// ```compile_fail,E0505
/// # use oss_torch::OwnedTensor;
/// # use tch::{Device, Kind, Tensor};
/// let a = OwnedTensor::new(Tensor::zeros([4], (Kind::Float, Device::Cpu)));
/// let x = a.slice::<f32>();
/// let _ = a.into_tensor().fill_(1.0);
/// assert_eq!(x[0], 0.0);
/// ```
///
/// ```compile_fail,E0382
/// # use oss_torch::OwnedTensor;
/// # use tch::{Device, Kind, Tensor};
/// let mut a = Tensor::zeros([4], (Kind::Float, Device::Cpu));
/// let owned = OwnedTensor::new(a);
/// let _ = a.fill_(1.0);
/// ```
#[derive(Debug)]
pub struct OwnedTensor(Tensor);

impl OwnedTensor {
    /// Creates a tensor whose elements are unspecified until they are written.
    pub fn empty(shape: &[i64], kind: Kind) -> Self {
        Self(Tensor::empty(shape, (kind, Device::Cpu)))
    }

    /// Takes ownership of a CPU tensor: without a copy if this is the only handle to its memory, else by copying it.
    ///
    /// # Panics
    /// Panics if the tensor is not on the CPU.
    pub fn new(tensor: Tensor) -> Self {
        assert_eq!(tensor.device(), Device::Cpu, "tensor bytes are only accessible on the CPU");
        // SAFETY: a live tensor, of which only reference counts are read.
        let is_unshared = unsafe { oss_is_unshared(tensor.as_ptr()) };
        if is_unshared && tensor.is_contiguous() && !tensor.requires_grad() {
            return Self(tensor);
        }
        let mut copy = Self::empty(&tensor.size(), tensor.kind());
        copy.0.copy_(&tensor.detach());
        copy
    }

    /// Converts this back to an ordinary tensor.
    pub fn into_tensor(self) -> Tensor {
        self.0
    }

    /// The elements, in order.
    ///
    /// # Panics
    /// Panics if the tensor has another kind.
    pub fn slice<T: Element>(&self) -> &[T] {
        assert_kind::<T>(&self.0);
        // SAFETY: of this kind, as was checked; `self` is borrowed and holds the only handle, so nothing writes the
        // memory.
        unsafe { elements(&self.0) }
    }

    /// The elements, as a mutable slice.
    ///
    /// # Panics
    /// Panics if the tensor has another kind.
    pub fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        assert_kind::<T>(&self.0);
        // SAFETY: as in `slice`, and `self` is borrowed mutably for this slice alone.
        unsafe { elements_mut(&mut self.0) }
    }

    /// The bytes, as a mutable slice.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `slice_mut`.
        unsafe { elements_mut(&mut self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros() -> Tensor {
        Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn a_sole_handle_is_taken_without_a_copy() {
        let tensor = zeros();
        let address = tensor.data_ptr();
        let mut owned = OwnedTensor::new(tensor);
        owned.slice_mut::<f32>()[4] = 5.0;
        assert_eq!(owned.slice::<f32>(), [0.0, 0.0, 0.0, 0.0, 5.0, 0.0]);
        let tensor = owned.into_tensor();
        assert_eq!((tensor.data_ptr(), tensor.double_value(&[1, 1])), (address, 5.0));
    }

    #[test]
    fn shared_memory_is_copied() {
        let tensor = zeros();
        for other in [tensor.shallow_clone(), tensor.view([6]), tensor.narrow(0, 1, 1), tensor.detach()] {
            let mut owned = OwnedTensor::new(other);
            owned.slice_mut::<f32>().fill(1.0);
            assert_eq!(tensor.sum(Kind::Float).double_value(&[]), 0.0);
        }
        let turned =
            OwnedTensor::new(Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).transpose(0, 1));
        assert_eq!(turned.slice::<f32>(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn an_empty_tensor_has_no_elements() {
        assert_eq!(OwnedTensor::empty(&[0, 4], Kind::Float).slice::<f32>().len(), 0);
    }
}
