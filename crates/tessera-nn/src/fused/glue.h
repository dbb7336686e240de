// What functions of a CPU have in common: kernels by machine and kind, and their place in libtorch's autograd.

#pragma once

#include <cstring>
#include <string>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels.h"

namespace tessera {

using at::Tensor;
using Context = torch::autograd::AutogradContext;
using List = torch::autograd::variable_list;

// The kernels for what libtorch computes with on this machine.
inline const Set& best() {
#ifdef TESSERA_X86
  static const std::string level = at::get_cpu_capability();
  if (level == "AVX512") return avx512;
  if (level == "AVX2") return avx2;
#endif
  return baseline;
}

template <typename T>
struct Of;
template <>
struct Of<float> {
  using A = float;
  static const Kernels<float, float>& kernels() { return best().of_float; }
};
template <>
struct Of<double> {
  using A = double;
  static const Kernels<double, double>& kernels() { return best().of_double; }
};
template <>
struct Of<bfloat16> {
  using A = float;
  static const Kernels<bfloat16, float>& kernels() { return best().of_bfloat16; }
};

inline double number_of(float value) { return value; }
inline double number_of(double value) { return value; }
inline double number_of(bfloat16 value) { return c10::detail::f32_from_bits(value.bits); }

// Calls f with a value of the type that a tensor's memory holds.
template <typename F>
void by_kind(const Tensor& tensor, F f) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return f(float());
    case at::kDouble: return f(double());
    case at::kBFloat16: return f(bfloat16());
    default: TORCH_CHECK(false, "a function of a CPU takes float32, float64 and bfloat16, not ", tensor.scalar_type());
  }
}

template <typename T>
inline T* values(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// A number for each channel, as kernels compute.
inline Tensor for_channels(const Tensor& tensor, const Tensor& x) {
  return tensor.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).contiguous();
}

// Makes whatever differentiates these gradients fail, and say why, as PyTorch's once_differentiable does.
template <typename... Inputs>
void refuse_second(const char* name, List& gradients, const Inputs&... inputs) {
  if (!at::GradMode::is_enabled() || !torch::autograd::compute_requires_grad(inputs...)) return;
  auto edges = torch::autograd::collect_next_edges(inputs...);
  const std::shared_ptr<torch::autograd::Node> refuses(
      new torch::autograd::Error(std::string(name) + " on a CPU has no second derivative", std::move(edges)),
      torch::autograd::deleteNode);
  torch::autograd::set_history(gradients, refuses);
}

// A new tensor of what f gives; null, and what is wrong in `error`, if it fails.
template <typename F>
Tensor* guarded(char* error, size_t error_len, F f) {
  try {
    return new Tensor(f());
  } catch (const c10::Error& problem) {
    std::strncpy(error, problem.what_without_backtrace(), error_len - 1);
  } catch (const std::exception& problem) {
    std::strncpy(error, problem.what(), error_len - 1);
  }
  error[error_len - 1] = '\0';
  return nullptr;
}

}  // namespace tessera
