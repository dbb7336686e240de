// Group norm, and SiLU on it where that is asked for, as one function of autograd for tensors of a CPU.

#include "passes.h"

namespace tessera {
namespace {

// The tensor itself, or a copy that is whole in memory, with its channels where they are next to each other.
Tensor whole(const Tensor& tensor) {
  if (tensor.is_contiguous() || has_channels_last(tensor)) return tensor;
  if (tensor.stride(1) != 1) return tensor.contiguous();
  return tensor.movedim(1, -1).contiguous().movedim(-1, 1);
}

// A tensor that lies as `x` does, which is whole.
Tensor laid_out_as(const Tensor& tensor, const Tensor& x) {
  if (has_channels_last(x) ? has_channels_last(tensor) : tensor.is_contiguous()) return tensor;
  return at::empty_like(x).copy_(tensor);
}

struct GroupNorm : torch::autograd::Function<GroupNorm> {
  static Tensor forward(Context* context, const Tensor& input, const Tensor& weight, const Tensor& bias,
                        int64_t groups, double eps, bool is_silu) {
    const Tensor x = whole(input), y = at::empty_like(x);
    const Tensor weight_c = for_channels(weight, x), bias_c = for_channels(bias, x);
    const Tensor means = at::empty({x.size(0), groups}, x.options().dtype(at::kDouble));
    const Tensor inverses = at::empty_like(means);
    if (x.numel() > 0) {
      by_kind(x, [&](auto of) {
        using T = decltype(of);
        using A = typename Of<T>::A;
        const Plan plan(x, groups, Of<T>::kernels().lanes);
        std::vector<Moments> parts(plan.samples * plan.pieces * groups);
        plan.run([&] {
          return Forward<T>{plan, values<T>(x), values<T>(y), values<A>(weight_c), values<A>(bias_c), eps, is_silu,
                            values<double>(means), values<double>(inverses), parts};
        });
      });
    }
    context->save_for_backward({input, weight, bias, means, inverses});
    context->saved_data["groups"] = groups;
    context->saved_data["is_silu"] = is_silu;
    return y;
  }

  static List backward(Context* context, List gradients) {
    const List saved = context->get_saved_variables();
    const Tensor &input = saved[0], &weight = saved[1], &bias = saved[2];
    List found;
    {
      const at::NoGradGuard no_grad;
      found = gradient(context, whole(input), weight, bias, saved[3], saved[4], gradients[0]);
    }
    refuse_second("group norm", found, gradients[0], input, weight, bias);
    found.resize(6);
    return found;
  }

  static List gradient(Context* context, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& means,
                       const Tensor& inverses, const Tensor& at_output) {
    const Tensor dy = laid_out_as(at_output, x);
    const Tensor weight_c = for_channels(weight, x), bias_c = for_channels(bias, x);
    const Tensor dx = context->needs_input_grad(0) ? at::empty_like(x) : Tensor();
    const Tensor at_weight = at::zeros_like(weight, weight.options().dtype(at::kDouble));
    const Tensor at_bias = at::zeros_like(at_weight);
    if (x.numel() > 0) {
      by_kind(x, [&](auto of) {
        using T = decltype(of);
        using A = typename Of<T>::A;
        const Plan plan(x, context->saved_data["groups"].toInt(), Of<T>::kernels().lanes);
        std::vector<double> sums(plan.samples * plan.pieces * plan.channels), products(sums.size());
        std::vector<double> slopes(plan.samples * plan.groups), levels(slopes.size());
        const bool is_silu = context->saved_data["is_silu"].toBool();
        plan.run([&] {
          return Backward<T>{plan, values<T>(x), values<T>(dy), dx.defined() ? values<T>(dx) : nullptr,
                             values<A>(weight_c), values<A>(bias_c), is_silu, values<double>(means),
                             values<double>(inverses), sums, products, slopes, levels};
        });
        double *bias_sums = values<double>(at_bias), *weight_sums = values<double>(at_weight);
        for (int64_t from = 0; from < plan.samples * plan.pieces * plan.channels; from += plan.channels) {
          for (int64_t c = 0; c < plan.channels; ++c) {
            bias_sums[c] += sums[from + c];
            weight_sums[c] += products[from + c];
          }
        }
      });
    }
    return {dx, at_weight.to(weight.scalar_type()), at_bias.to(bias.scalar_type())};
  }
};

}  // namespace
}  // namespace tessera

// A new tensor, f(group norm of `input`), where f is SiLU or nothing; null, and what is wrong in `error`, if it fails.
extern "C" at::Tensor* tessera_group_norm(const at::Tensor* input, const at::Tensor* weight, const at::Tensor* bias,
                                          int64_t groups, double eps, bool is_silu, char* error, size_t error_len) {
  return tessera::guarded(error, error_len, [&] {
    TORCH_CHECK(input->dim() >= 2, "group norm takes [N, C, ..], not ", input->sizes());
    const int64_t channels = input->size(1);
    TORCH_CHECK(groups > 0 && channels % groups == 0, groups, " groups of ", channels, " channels");
    TORCH_CHECK(weight->sizes() == at::IntArrayRef{channels} && bias->sizes() == weight->sizes(),
                "weight ", weight->sizes(), " and bias ", bias->sizes(), " of ", channels, " channels");
    return tessera::GroupNorm::apply(*input, *weight, *bias, groups, eps, is_silu);
  });
}
