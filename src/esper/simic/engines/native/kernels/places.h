// Where the rows of a batch are in a block.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "actor_critic.h"

namespace esper {

// For sequences, whose steps follow each other in the batch, and which are side by side in a block.
class Places {
 public:
  explicit Places(const ActorCritic& networks)
      : index_(networks.rows), about_(networks.rows), states_(networks.rows * networks.state_size()),
        begins_(new bool[networks.rows]) {}

  // Lets the block be these sequences of the batch; returns the batch's row of each of its rows.
  const int64_t* begin(const ActorCritic& networks, const Batch& batch, const int64_t* sequences, int count, int steps,
                       ActorCritic::Buffers& buffers) {
    const int state_size = networks.state_size();
    selects_ = batch.selected != nullptr;
    for (int t = 0; t < steps; ++t)
      for (int s = 0; s < count; ++s) {
        const int row = t * count + s;
        const int64_t i = index_[row] = sequences[s] * steps + t;
        begins_[row] = batch.begins[i];
        if (selects_) about_[row] = int(batch.selected[i]) * count + s;
      }
    for (int s = 0; s < count; ++s)
      std::copy_n(batch.recurrent_state + sequences[s] * state_size, state_size, &states_[s * state_size]);
    networks.begin({count, steps, states_.data(), state_size, begins_.get()}, buffers);
    return index_.data();
  }

  // Lets `use(output, row, about)` turn the output of the row that `row` is about, in most cases itself, into the
  // gradients by it; where several are about the same one these are added up.
  template <class Use>
  void each(float* outputs, int stride, int count, Use use) {
    if (!selects_) {
      for (int row = 0; row < count; ++row) use(outputs + row * stride, row, row);
      return;
    }
    kept_.assign(outputs, outputs + count * stride);
    std::fill_n(outputs, count * stride, 0.0f);
    for (int row = 0; row < count; ++row) {
      const float* output = &kept_[about_[row] * stride];
      row_.assign(output, output + stride);
      use(row_.data(), row, about_[row]);
      for (int j = 0; j < stride; ++j) outputs[about_[row] * stride + j] += row_[j];
    }
  }

 private:
  bool selects_ = false;
  std::vector<int64_t> index_;
  std::vector<int> about_;
  std::vector<float> states_, kept_, row_;
  std::unique_ptr<bool[]> begins_;
};

}  // namespace esper
