// What an update changes, as it was before.
#pragma once
#include <algorithm>
#include <vector>

#include "settings.h"

namespace esper {

class Undo {
 public:
  void keep(const State& state, const LearnerConfig& config) {
    kept_.clear();
    each(state, config, [&](float* numbers, int64_t count) { kept_.insert(kept_.end(), numbers, numbers + count); });
  }

  void restore(const State& state, const LearnerConfig& config) const {
    const float* from = kept_.data();
    each(state, config, [&](float* numbers, int64_t count) {
      std::copy_n(from, count, numbers);
      from += count;
    });
  }

 private:
  template <class Use>
  static void each(const State& state, const LearnerConfig& config, Use use) {
    for (int g = 0; g < config.groups; ++g) {
      use(state.parameters[g], config.parameters[g]);
      use(state.exp_avg[g], config.parameters[g]);
      use(state.exp_avg_sq[g], config.parameters[g]);
      use(state.factors[g], 1);
    }
    use(state.step, 1);
  }

  std::vector<float> kept_;
};

}  // namespace esper
