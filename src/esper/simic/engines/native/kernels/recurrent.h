// LSTM and GRU over blocks of sequences, as esper.simic.nets.recurrent; their gradients go back to the first step.
//
// Rows are ordered by time: those of step t follow those of step t - 1, so that a step is a block of neighbouring rows.
#pragma once
#include <algorithm>
#include <cstring>

#include "layer.h"

namespace esper {

// The four parts of a row of gates lie side by side. The input's product is added to some of them and the recurrent
// product to some, each to neighbouring ones. Before the backward pass they hold what the derivatives need, after it
// the gradients. `STATE` counts the parts of the state, of which the output is the first.
constexpr int PARTS = 4;

struct Lstm {
  // Parts i, f, g, o.
  static constexpr int GATES = 4, STATE = 2, FIRST_RECURRENT = 0;
  static constexpr int INPUT[] = {0, 1, 2, 3}, RECURRENT[] = {0, 1, 2, 3};  // parts of PyTorch's gates
  static constexpr bool RECURRENT_BIAS = false;

  static void forward(vec* p, vec, vec& cell, vec& output) {
    for (int part : {0, 1, 3}) p[part] = sigmoid(p[part]);
    p[2] = tanh(p[2]);
    cell = p[1] * cell + p[0] * p[2];
    output = p[3] * tanh(cell);
  }

  // `cell` is the one before the step. `by_output` becomes what goes to the output before it, but for what goes through
  // the recurrent product.
  static void backward(vec* p, vec, vec cell, vec& by_output, vec& by_cell) {
    const vec i = p[0], f = p[1], g = p[2], o = p[3], squashed = tanh(f * cell + i * g);
    by_cell += Tanh::gradient(by_output * o, squashed);
    p[0] = by_cell * g * i * (1 - i);
    p[1] = by_cell * cell * f * (1 - f);
    p[2] = Tanh::gradient(by_cell * i, g);
    p[3] = by_output * squashed * o * (1 - o);
    by_cell *= f;
    by_output = vec{};
  }
};

struct Gru {
  // Parts n, r, z, and the recurrent product that r multiplies, which has a bias; PyTorch's gates are r, z, n.
  static constexpr int GATES = 3, STATE = 1, FIRST_RECURRENT = 1;
  static constexpr int INPUT[] = {1, 2, 0}, RECURRENT[] = {1, 2, 3};
  static constexpr bool RECURRENT_BIAS = true;

  static void forward(vec* p, vec before, vec&, vec& output) {
    p[1] = sigmoid(p[1]);
    p[2] = sigmoid(p[2]);
    p[0] = tanh(p[0] + p[1] * p[3]);
    output = p[0] + p[2] * (before - p[0]);
  }

  static void backward(vec* p, vec before, vec, vec& by_output, vec&) {
    const vec n = p[0], r = p[1], z = p[2], product = p[3];
    p[0] = Tanh::gradient(by_output * (1 - z), n);
    p[1] = p[0] * product * r * (1 - r);
    p[2] = by_output * (before - n) * z * (1 - z);
    p[3] = p[0] * r;
    by_output *= z;
  }
};

template <class Cell>
class Recurrent : public Layer {
 public:
  Recurrent(const LayerConfig& config, Rooms& rooms)
      : Layer(config, parameters(config.inputs, config.outputs), rooms), width_(padded(out)),
        gates_(Cell::GATES * width_), gates_stride_(row_stride(gates_)), parts_stride_(row_stride(PARTS * width_)),
        input_weight_(rooms.packed.take(gates_ * in_stride)),
        input_transposed_(rooms.packed.take(in * gates_stride_)), weight_(rooms.packed.take(gates_ * out_stride)),
        transposed_(rooms.packed.take(out * gates_stride_)), bias_(rooms.packed.take(gates_)),
        recurrent_bias_(rooms.packed.take(width_)), input_weight_gradient_(rooms.gradients.take(gates_ * in_stride)),
        weight_gradient_(rooms.gradients.take(gates_ * out_stride)),
        bias_gradient_(rooms.gradients.take(PARTS * width_)), state_(rooms.state),
        parts_(rooms.outputs.take(rooms.rows * parts_stride_)), before_(rooms.outputs.take(rooms.rows * out_stride)),
        cells_(rooms.outputs.take(Cell::STATE > 1 ? 2 * rooms.rows * out_stride : 0)),
        carried_(rooms.outputs.take(2 * rooms.rows * out_stride)), keep_(rooms.outputs.take(rooms.rows + 1)) {
    rooms.state += state_size();
  }

  int state_size() const override { return Cell::STATE * out; }

  void pack(const float* parameters, float* packed) const override {
    const float *input = parameters, *recurrent = input + Cell::GATES * out * in,
                *bias = recurrent + Cell::GATES * out * out, *recurrent_bias = bias + Cell::GATES * out;
    for (int gate = 0; gate < Cell::GATES; ++gate) {
      const int to = input_part(gate), to_recurrent = recurrent_part(gate);
      for (int o = 0; o < out; ++o, input += in, recurrent += out) {
        float* row = packed + input_weight_ + (to + o) * in_stride;
        arrange(input, row);
        std::memcpy(packed + weight_ + (to_recurrent + o) * out_stride, recurrent, out * sizeof(float));
        for (int i = 0; i < in; ++i) packed[input_transposed_ + i * gates_stride_ + to + o] = row[i];
        for (int i = 0; i < out; ++i) packed[transposed_ + i * gates_stride_ + to_recurrent + o] = recurrent[i];
      }
      std::memcpy(packed + bias_ + to, bias + gate * out, out * sizeof(float));
    }
    if (Cell::RECURRENT_BIAS) std::memcpy(packed + recurrent_bias_, recurrent_bias, out * sizeof(float));
  }

  void begin(const Sequences& sequences, float* outputs) const override {
    float* keep = outputs + keep_;
    keep[0] = float(sequences.count);
    for (int r = 0; r < sequences.count * sequences.steps; ++r) keep[1 + r] = !sequences.begins || !sequences.begins[r];
    for (int s = 0; s < sequences.count; ++s) {
      const float* state = sequences.states + s * sequences.state_size + state_;
      // Not multiplied by 0: the old state may not be finite, nor what another block has left in the padding.
      for (int n = 0; n < width_; ++n) {
        const bool kept = keep[1 + s] != 0 && n < out;
        outputs[before_ + s * out_stride + n] = kept ? state[n] : 0.0f;
        if (Cell::STATE > 1) outputs[cells_ + s * out_stride + n] = kept ? state[out + n] : 0.0f;
      }
    }
  }

  void state_after(const float* outputs, int row, float* state) const override {
    std::memcpy(state + state_, output(outputs) + row * out_stride, out * sizeof(float));
    if (Cell::STATE > 1)
      std::memcpy(state + state_ + out, outputs + cells_ + (count(outputs) + row) * out_stride, out * sizeof(float));
  }

  void forward(const float* packed, const float* input, int rows, float* outputs) const override {
    float* parts = outputs + parts_;
    const int stride = parts_stride_;
    product(rows, gates_, in, input, in_stride, 1, packed + input_transposed_, gates_stride_,
            [bias = packed + bias_](int, int n) { return load(bias + n); },
            [=](int m, int n, vec v) { store(parts + m * stride + n, v); });
    const int sequences = count(outputs);
    for (int row = 0; row < rows; row += sequences) step(packed, row, sequences, outputs);
  }

  void backward(const float* packed, const float* input, int rows, const float* outputs, float* gradients,
                const Target* target) const override {
    // The gradients by the gates replace them.
    float* parts = const_cast<float*>(outputs) + parts_;
    const int sequences = count(outputs), stride = parts_stride_;
    float* carried = const_cast<float*>(outputs) + carried_;
    std::memset(carried, 0, 2 * sequences * out_stride * sizeof(float));
    for (int row = rows - sequences; row >= 0; row -= sequences)
      step_back(packed, row, sequences, outputs, parts, carried);
    // In pieces that stay in the cache.
    for (int row = 0; row < rows; row += BLOCK) {
      const int piece = std::min(BLOCK, rows - row);
      const float* by_parts = parts + row * stride;
      add_product(by_parts, input + row * in_stride, in_stride, padded(in), piece, gradients + input_weight_gradient_);
      add_product(by_parts + Cell::FIRST_RECURRENT * width_, outputs + before_ + row * out_stride, out_stride, width_,
                  piece, gradients + weight_gradient_);
      float* by_bias = gradients + bias_gradient_;
      for (int n = 0; n < PARTS * width_; n += LANES) {
        vec sum = load(by_bias + n);
        for (int r = 0; r < piece; ++r) sum += load(by_parts + r * stride + n);
        store(by_bias + n, sum);
      }
    }
    if (target)
      target->with(in_stride, [&](auto end) {
        product(rows, padded(in), gates_, parts, stride, 1, packed + input_weight_, in_stride,
                [](int, int) { return vec{}; }, end);
      });
  }

  void add_up(const float* gradients, float* sum) const override {
    float *input = sum, *recurrent = input + Cell::GATES * out * in, *bias = recurrent + Cell::GATES * out * out,
          *recurrent_bias = bias + Cell::GATES * out;
    const float* by_bias = gradients + bias_gradient_;
    for (int gate = 0; gate < Cell::GATES; ++gate) {
      const int from = input_part(gate), from_recurrent = recurrent_part(gate);
      for (int o = 0; o < out; ++o, input += in, recurrent += out) {
        const float* by_input = gradients + input_weight_gradient_ + (from + o) * in_stride;
        const float* by_recurrent = gradients + weight_gradient_ + (from_recurrent + o) * out_stride;
        add_arranged(by_input, input);
        for (int i = 0; i < out; ++i) recurrent[i] += by_recurrent[i];
        bias[gate * out + o] += by_bias[from + o];
      }
    }
    if (Cell::RECURRENT_BIAS)
      for (int o = 0; o < out; ++o) recurrent_bias[o] += by_bias[(PARTS - 1) * width_ + o];
  }

 private:
  static ptrdiff_t parameters(ptrdiff_t in, ptrdiff_t out) {
    return out * (Cell::GATES * (in + out + 1) + Cell::RECURRENT_BIAS);
  }

  // Where the columns of one of PyTorch's gates are in the input's product, and in the recurrent one.
  int input_part(int gate) const { return Cell::INPUT[gate] * width_; }
  int recurrent_part(int gate) const { return (Cell::RECURRENT[gate] - Cell::FIRST_RECURRENT) * width_; }

  int count(const float* outputs) const { return int(outputs[keep_]); }
  bool keeps(const float* outputs, int row) const { return outputs[keep_ + 1 + row] != 0; }

  // The rows of one time step, from `row` on.
  void step(const float* packed, int row, int sequences, float* outputs) const {
    float *before = outputs + before_ + row * out_stride, *parts = outputs + parts_ + row * parts_stride_;
    float *cells = outputs + cells_ + row * out_stride, *to = output(outputs) + row * out_stride;
    for (int s = 0; row && s < sequences; ++s) {
      const bool kept = keeps(outputs, row + s);
      for (int n = 0; n < width_; n += LANES) {
        const ptrdiff_t at = s * out_stride + n;
        store(before + at, kept ? load(to - sequences * out_stride + at) : vec{});
      }
    }
    const float* bias = packed + recurrent_bias_;
    const int stride = parts_stride_, added = gates_ - Cell::RECURRENT_BIAS * width_;
    float* recurrent = parts + Cell::FIRST_RECURRENT * width_;
    product(sequences, gates_, out, before, out_stride, 1, packed + transposed_, gates_stride_,
            [=](int m, int n) { return n < added ? load(recurrent + m * stride + n) : load(bias + n - added); },
            [=](int m, int n, vec v) { store(recurrent + m * stride + n, v); });
    for (int s = 0; s < sequences; ++s) {
      const bool kept = keeps(outputs, row + s);
      for (int n = 0; n < width_; n += LANES) {
        const ptrdiff_t at = s * out_stride + n;
        vec p[PARTS], cell = cell_before(cells + at, kept), after;
        for (int part = 0; part < PARTS; ++part) p[part] = load(parts + s * stride + part * width_ + n);
        Cell::forward(p, load(before + at), cell, after);
        for (int part = 0; part < PARTS; ++part) store(parts + s * stride + part * width_ + n, p[part]);
        if (Cell::STATE > 1) store(cells + sequences * out_stride + at, cell);
        store(to + at, after);
      }
    }
  }

  // The gradients of one time step. `carried` has those by the outputs of the step, and by its cells, from later ones;
  // then those by what was before it.
  void step_back(const float* packed, int row, int sequences, const float* outputs, float* all_parts,
                 float* carried) const {
    const float *before = outputs + before_ + row * out_stride, *cells = outputs + cells_ + row * out_stride;
    const float* wanted = output(outputs) + row * out_stride;
    float *parts = all_parts + row * parts_stride_, *by_cells = carried + sequences * out_stride;
    const int stride = parts_stride_;
    for (int s = 0; s < sequences; ++s) {
      const bool kept = keeps(outputs, row + s);
      for (int n = 0; n < width_; n += LANES) {
        const ptrdiff_t at = s * out_stride + n;
        vec p[PARTS], by_output = load(wanted + at) + load(carried + at), by_cell = load(by_cells + at);
        for (int part = 0; part < PARTS; ++part) p[part] = load(parts + s * stride + part * width_ + n);
        Cell::backward(p, load(before + at), cell_before(cells + at, kept), by_output, by_cell);
        for (int part = 0; part < PARTS; ++part) store(parts + s * stride + part * width_ + n, p[part]);
        store(carried + at, by_output);
        store(by_cells + at, kept ? by_cell : vec{});
      }
    }
    if (!row) return;
    const int step = out_stride;
    product(sequences, width_, gates_, parts + Cell::FIRST_RECURRENT * width_, stride, 1, packed + weight_, out_stride,
            [=](int m, int n) { return load(carried + m * step + n); },
            [=, this](int m, int n, vec v) { store(carried + m * step + n, keeps(outputs, row + m) ? v : vec{}); });
  }

  static vec cell_before(const float* cells, bool kept) { return Cell::STATE > 1 && kept ? load(cells) : vec{}; }

  // Adds the transposed `gates` of `rows`, times `input`, to `sums` [gates_, stride].
  void add_product(const float* gates, const float* input, int stride, int columns, int rows, float* sums) const {
    product(gates_, columns, rows, gates, 1, parts_stride_, input, stride,
            [=](int m, int n) { return load(sums + m * stride + n); },
            [=](int m, int n, vec v) { store(sums + m * stride + n, v); });
  }

  const int width_, gates_, gates_stride_, parts_stride_;  // floats of a part, of all gates of a row, from row to row
  // Weights [gates, in_stride] and [gates, out_stride], and transposed [in, gates_stride] and [out, gates_stride].
  const ptrdiff_t input_weight_, input_transposed_, weight_, transposed_, bias_, recurrent_bias_;
  const ptrdiff_t input_weight_gradient_, weight_gradient_, bias_gradient_;
  const ptrdiff_t state_;  // where its own is in the state of the network
  // By row: gates, outputs before it (0 where it begins an episode), cells after it (first those before all), whether
  // it goes on with what was before it (first the number of sequences).
  const ptrdiff_t parts_, before_, cells_, carried_, keep_;
};

}  // namespace esper
