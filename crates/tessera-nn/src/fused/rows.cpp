// Functions of autograd over rows whose values lie next to one another, for tensors of a CPU: RMS norm, SwiGLU, and
// dropout with what goes around it.

#include "glue.h"

namespace tessera {
namespace {

// Rows that one thread takes at a time; sums over rows are made of sums over so many, whatever threads there are.
constexpr int64_t ROWS = 64;

// Calls f(first row, number of rows, number of the piece) for pieces of all rows, shared by threads.
template <typename F>
void each_piece(int64_t rows, F f) {
  at::parallel_for(0, (rows + ROWS - 1) / ROWS, 4, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      f(piece * ROWS, std::min(ROWS, rows - piece * ROWS), piece);
    }
  });
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(Context* context, const Tensor& input, const Tensor& weight, double eps) {
    const Tensor x = input.contiguous(), y = at::empty_like(x), weight_c = for_channels(weight, x);
    const int64_t width = weight.numel(), rows = x.numel() / width;
    const Tensor inverses = at::empty({rows}, weight_c.options());
    by_kind(x, [&](auto of) {
      using T = decltype(of);
      using A = typename Of<T>::A;
      each_piece(rows, [&](int64_t first, int64_t num, int64_t) {
        Of<T>::kernels().rms(values<T>(x) + first * width, values<A>(weight_c), num, width, static_cast<A>(eps),
                             values<T>(y) + first * width, values<A>(inverses) + first);
      });
    });
    context->save_for_backward({input, weight, inverses});
    return y;
  }

  static List backward(Context* context, List gradients) {
    const List saved = context->get_saved_variables();
    const Tensor &input = saved[0], &weight = saved[1], &inverses = saved[2];
    List found;
    {
      const at::NoGradGuard no_grad;
      found = gradient(input.contiguous(), weight, inverses, gradients[0].contiguous());
    }
    refuse_second("RMS norm", found, gradients[0], input, weight);
    found.resize(3);
    return found;
  }

  static List gradient(const Tensor& x, const Tensor& weight, const Tensor& inverses, const Tensor& dy) {
    const Tensor dx = at::empty_like(x), weight_c = for_channels(weight, x);
    const int64_t width = weight.numel(), rows = x.numel() / width, pieces = (rows + ROWS - 1) / ROWS;
    const Tensor sums = at::zeros({pieces, width}, weight_c.options());
    by_kind(x, [&](auto of) {
      using T = decltype(of);
      using A = typename Of<T>::A;
      each_piece(rows, [&](int64_t first, int64_t num, int64_t piece) {
        const int64_t at = first * width;
        Of<T>::kernels().rms_gradient(values<T>(x) + at, values<T>(dy) + at, values<A>(weight_c),
                                      values<A>(inverses) + first, num, width, values<T>(dx) + at,
                                      values<A>(sums) + piece * width);
      });
    });
    return {dx, sums.sum(0, false, at::kDouble).to(weight.scalar_type())};
  }
};

struct Swiglu : torch::autograd::Function<Swiglu> {
  static Tensor forward(Context* context, const Tensor& input) {
    const Tensor within = input.contiguous();
    std::vector<int64_t> shape = within.sizes().vec();
    shape.back() /= 2;
    const Tensor y = at::empty(shape, within.options());
    const int64_t width = shape.back(), rows = width == 0 ? 0 : y.numel() / width;
    by_kind(within, [&](auto of) {
      using T = decltype(of);
      each_piece(rows, [&](int64_t first, int64_t num, int64_t) {
        Of<T>::kernels().swiglu(values<T>(within) + 2 * first * width, num, width, values<T>(y) + first * width);
      });
    });
    context->save_for_backward({input});
    return y;
  }

  static List backward(Context* context, List gradients) {
    const Tensor input = context->get_saved_variables()[0];
    List found;
    {
      const at::NoGradGuard no_grad;
      const Tensor within = input.contiguous(), dy = gradients[0].contiguous(), at_within = at::empty_like(within);
      const int64_t width = dy.size(-1), rows = width == 0 ? 0 : dy.numel() / width;
      by_kind(within, [&](auto of) {
        using T = decltype(of);
        each_piece(rows, [&](int64_t first, int64_t num, int64_t) {
          const int64_t at = first * width;
          Of<T>::kernels().swiglu_gradient(values<T>(within) + 2 * at, values<T>(dy) + at, num, width,
                                           values<T>(at_within) + 2 * at);
        });
      });
      found = {at_within};
    }
    refuse_second("SwiGLU", found, gradients[0], input);
    return found;
  }
};

// v where its byte is not below `dropped`, over the share of what is not, else 0; added to x where there is one.
Tensor kept(const std::optional<Tensor>& x, const Tensor& v, const Tensor& bytes, int64_t dropped) {
  const Tensor y = at::empty_like(v);
  const int64_t samples = v.size(0), len = samples == 0 ? 0 : v.numel() / samples;
  by_kind(v, [&](auto of) {
    using T = decltype(of);
    using A = typename Of<T>::A;
    const A scale = static_cast<A>(256.0 / static_cast<double>(256 - dropped));
    at::parallel_for(0, samples, 4, [&](int64_t begin, int64_t end) {
      for (int64_t sample = begin; sample < end; ++sample) {
        const int64_t at = sample * len;
        Of<T>::kernels().keep(x ? values<T>(*x) + at : nullptr, values<T>(v) + at,
                              values<uint8_t>(bytes) + sample * bytes.stride(0), len, static_cast<uint8_t>(dropped),
                              scale, values<T>(y) + at);
      }
    });
  });
  return y;
}

struct Keep : torch::autograd::Function<Keep> {
  static Tensor forward(Context* context, const std::optional<Tensor>& x, const Tensor& v, const Tensor& bytes,
                        int64_t dropped) {
    // Those of a sample lie next to one another, and samples may lie apart.
    const bool are_whole = bytes.size(0) == 0 || bytes[0].is_contiguous();
    const Tensor rows = are_whole ? bytes : bytes.contiguous();
    context->save_for_backward({rows});
    context->saved_data["dropped"] = dropped;
    context->saved_data["is_added"] = x.has_value();
    return kept(x ? std::optional(x->contiguous()) : x, v.contiguous(), rows, dropped);
  }

  static List backward(Context* context, List gradients) {
    const Tensor bytes = context->get_saved_variables()[0];
    List found;
    {
      const at::NoGradGuard no_grad;
      const Tensor at_v = kept(std::nullopt, gradients[0].contiguous(), bytes, context->saved_data["dropped"].toInt());
      found = {at_v};
    }
    refuse_second("dropout", found, gradients[0]);
    const Tensor at_x = context->saved_data["is_added"].toBool() ? gradients[0] : Tensor();
    return {at_x, found[0], Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace tessera

// Each gives a new tensor; null, and what is wrong in `error`, if it fails.

extern "C" at::Tensor* tessera_rms_norm(const at::Tensor* input, const at::Tensor* weight, double eps, char* error,
                                        size_t error_len) {
  return tessera::guarded(error, error_len, [&] {
    TORCH_CHECK(weight->dim() == 1 && weight->numel() > 0 && input->dim() > 0 && input->size(-1) == weight->numel(),
                "RMS norm: weight ", weight->sizes(), " for ", input->sizes());
    return tessera::RmsNorm::apply(*input, *weight, eps);
  });
}

extern "C" at::Tensor* tessera_swiglu(const at::Tensor* within, char* error, size_t error_len) {
  return tessera::guarded(error, error_len, [&] {
    TORCH_CHECK(within->dim() > 0 && within->size(-1) % 2 == 0, "SwiGLU: two halves of ", within->sizes());
    return tessera::Swiglu::apply(*within);
  });
}

extern "C" at::Tensor* tessera_keep(const at::Tensor* x, const at::Tensor* v, const at::Tensor* bytes, int64_t dropped,
                                    char* error, size_t error_len) {
  return tessera::guarded(error, error_len, [&] {
    TORCH_CHECK(v->dim() > 0 && bytes->sizes() == v->sizes() && bytes->scalar_type() == at::kByte,
                "dropout: bytes ", bytes->sizes(), " for ", v->sizes());
    TORCH_CHECK(x == nullptr || (x->sizes() == v->sizes() && x->scalar_type() == v->scalar_type()),
                "dropout: ", v->sizes(), " beside another shape or kind");
    TORCH_CHECK(dropped >= 0 && dropped < 256, "dropout: ", dropped, " of 256");
    return tessera::Keep::apply(x == nullptr ? std::nullopt : std::optional(*x), *v, *bytes, dropped);
  });
}
