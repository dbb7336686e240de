// AdamW in one pass over memory on a CPU.

#include "glue.h"

namespace tessera {
namespace {

// Values that a thread is woken for.
constexpr int64_t ADAMW_GRAIN = 1 << 15;

template <typename A>
void step(AdamWStep<A> kernel, const Tensor& x, const Tensor& gradient, const Tensor* decayed, const Tensor& average,
          const Tensor& square, const double* by) {
  const auto number = [&](int which) { return static_cast<A>(by[which]); };
  const AdamW<A> numbers{number(0), number(1), number(2), number(3), number(4), number(5)};
  at::parallel_for(0, x.numel(), ADAMW_GRAIN, [&](int64_t begin, int64_t end) {
    kernel(values<A>(x) + begin, values<A>(gradient) + begin, decayed == nullptr ? nullptr : values<A>(*decayed) + begin,
           values<A>(average) + begin, values<A>(square) + begin, end - begin, numbers);
  });
}

}  // namespace
}  // namespace tessera

// Steps x, with moments `average` and `square`, along a gradient. `by` has what weights lose where `decayed` is 1, how
// far each moment goes, what its square's root is multiplied by, what is added to that, and the rate. Gives nothing but
// x itself; null, and what is wrong in `error`, if it fails.
extern "C" at::Tensor* tessera_adamw(const at::Tensor* x, const at::Tensor* gradient, const at::Tensor* decayed,
                                     const at::Tensor* average, const at::Tensor* square, const double* by, char* error,
                                     size_t error_len) {
  return tessera::guarded(error, error_len, [&] {
    for (const at::Tensor* other : {x, gradient, decayed, average, square}) {
      if (other == nullptr) continue;
      TORCH_CHECK(other->is_contiguous() && other->sizes() == x->sizes() && other->scalar_type() == x->scalar_type() &&
                      other->device().is_cpu(),
                  "AdamW: ", other->sizes(), " beside ", x->sizes());
    }
    const tessera::Set& set = tessera::best();
    if (x->scalar_type() == at::kDouble) {
      tessera::step<double>(set.adamw_of_double, *x, *gradient, decayed, *average, *square, by);
    } else {
      TORCH_CHECK(x->scalar_type() == at::kFloat, "AdamW: ", x->scalar_type());
      tessera::step<float>(set.adamw_of_float, *x, *gradient, decayed, *average, *square, by);
    }
    return *x;
  });
}
