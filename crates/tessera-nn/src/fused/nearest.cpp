// The largest of each row of scores, in one pass over memory on a CPU.

#include "glue.h"

namespace tessera {
namespace {

// Rows that a thread is woken for.
constexpr int64_t ROWS_GRAIN = 64;

template <typename A>
void search(Best<A> kernel, const Tensor& scores, const Tensor& halves, int64_t first, const Tensor& best,
            const Tensor& indices) {
  const int64_t width = scores.size(1);
  at::parallel_for(0, scores.size(0), ROWS_GRAIN, [&](int64_t begin, int64_t end) {
    kernel(values<A>(scores) + begin * width, values<A>(halves), end - begin, width, first, values<A>(best) + begin,
           values<int64_t>(indices) + begin);
  });
}

}  // namespace
}  // namespace tessera

// Takes the largest of each row of `scores` `[N, K]` less `halves` `[K]` into `best` and `indices` `[N]`, where it is above
// what is there; `first` is the number of the first column. Gives nothing but `indices`; null, and what is wrong in
// `error`, if it fails.
extern "C" at::Tensor* tessera_best(const at::Tensor* scores, const at::Tensor* halves, int64_t first,
                                    const at::Tensor* best, const at::Tensor* indices, char* error, size_t error_len) {
  return tessera::guarded(error, error_len, [&] {
    TORCH_CHECK(scores->dim() == 2 && halves->sizes() == at::IntArrayRef{scores->size(1)} &&
                    best->sizes() == at::IntArrayRef{scores->size(0)} && indices->sizes() == best->sizes(),
                "scores ", scores->sizes(), ", halves ", halves->sizes(), ", best ", best->sizes());
    for (const at::Tensor* other : {scores, halves, best, indices}) {
      const bool is_kind = other->scalar_type() == (other == indices ? at::kLong : scores->scalar_type());
      TORCH_CHECK(is_kind && other->is_contiguous() && other->device().is_cpu(), "of another kind or order");
    }
    const tessera::Set& set = tessera::best();
    if (scores->scalar_type() == at::kDouble) {
      tessera::search<double>(set.best_of_double, *scores, *halves, first, *best, *indices);
    } else {
      TORCH_CHECK(scores->scalar_type() == at::kFloat, "of kind ", scores->scalar_type());
      tessera::search<float>(set.best_of_float, *scores, *halves, first, *best, *indices);
    }
    return *indices;
  });
}
