// What all layers have in common. A network is a sequence of them; blocks of rows pass through it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "activations.h"
#include "busy.h"
#include "dots.h"

namespace esper {

// Rows that pass through a network together: their activations stay in the cache.
constexpr int BLOCK = 64;

inline int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

// A layer as Python describes it: its widths, the activation of its output, and where its first parameter is in the
// vector of its group. The others follow. An input of several `channels` is an image; convolutions have what follows.
struct LayerConfig {
  int32_t kind, inputs, outputs, activation;
  int64_t first;
  int32_t channels = 1, width = 0, kernel = 0, stride = 0;
};

// Floats of a buffer so far; each vector in it begins at a multiple of LANES.
struct Room {
  size_t size = 0;

  ptrdiff_t take(size_t count) {
    const ptrdiff_t offset = size;
    size += (count + LANES - 1) / LANES * LANES;
    return offset;
  }
};

// The buffers that the layers of a network share: copies of the parameters, laid out as products read them, sums of
// gradients in the same way, and outputs of one block of rows.
struct Rooms {
  int rows = BLOCK;  // of a block
  int state = 0;     // floats of the recurrent state so far
  Room packed, gradients, outputs;
};

// A block of rows [rows, in_stride] that a network reads; of observations that are mostly 0 their `dots` instead.
struct Input {
  const float* rows;
  const Dots* dots;  // null: rows
  const Busy* busy;  // where they are near, if it is worth looking at
};

// A block of rows that are sequences, ordered by time: those of step t follow those of step t - 1. `states` [count,
// state_size] are those before the first step; where `begins` [steps, count] an episode does, the state is 0.
struct Sequences {
  int count, steps;
  const float* states;
  int state_size;
  const bool* begins;  // null: nowhere
};

// Where the gradients by a layer's input go: through the activation of what is below, of which `kept` is left.
struct Target {
  float* gradients;
  int32_t activation;
  const float* kept;

  // Calls `use(end)`: `end(row, column, v)` takes a gradient.
  template <class Use>
  void with(int stride, Use use) const {
    with_activation(activation, [&](auto a) {
      if constexpr (a.KEEPS_INPUT)
        use([a, stride, to = gradients, kept = kept](int m, int n, vec v) {
          store(to + m * stride + n, a.gradient(v, load(kept + m * stride + n)));
        });
      else
        use([a, stride, to = gradients](int m, int n, vec v) {
          store(to + m * stride + n, a.gradient(v, load(to + m * stride + n)));
        });
    });
  }
};

class Layer {
 public:
  const int in, out, in_stride, out_stride;
  const int32_t activation;
  const int channels;           // of its input: here those of a place lie side by side, in PyTorch each channel by itself
  const ptrdiff_t first, size;  // of its parameters in the vector of its group

  virtual ~Layer() = default;

  // Copies its `parameters` into `packed`, whose padding must be 0 already.
  virtual void pack(const float* parameters, float* packed) const = 0;

  // Rows of `input` [rows, in_stride] into `outputs`.
  virtual void forward(const float* packed, const float* input, int rows, float* outputs) const = 0;

  // Adds to `gradients` those of the rows that went `forward`. `output` holds the gradients by what the activation was
  // applied to. Those by the input go to the `target`, if there is one; it may be the input.
  virtual void backward(const float* packed, const float* input, int rows, const float* outputs, float* gradients,
                        const Target* target) const = 0;

  // The same of observations that are `dots`, by a layer that can read them; so many in a row that it is worth it. Where
  // the next layer reads what is `busy`, one more row is what becomes of an observation without dots: its first place has
  // the gradients of all that is far from dots.
  virtual int most_dots() const { return 0; }
  virtual void forward_dots(const float*, const Dots&, const Busy*, int, float*) const {}
  virtual void backward_dots(const Dots&, const Busy*, int, const float*, float*) const {}

  // The places that a convolution makes of an observation, and which of them each dot is near.
  virtual int places() const { return 0; }
  virtual void mark(Dots::Row, uint8_t*) const {}

  // Of what a convolution made of dots: only what is `busy` is read of the rows of `input`, and of the row after them.
  virtual bool reads_busy() const { return false; }
  virtual void forward_busy(const float*, const Busy&, const float*, int, float*) const {}
  virtual void backward_busy(const float*, const Busy&, const float*, int, const float*, float*, const Target&) const {}

  // Adds `gradients` to `sum` [size], in the order of the parameters.
  virtual void add_up(const float* gradients, float* sum) const = 0;

  // A recurrent layer has a part of the state of each sequence. `begin` says which ones are next in the block, and
  // `state_after` copies its part of the state after a row that went forward.
  virtual int state_size() const { return 0; }
  virtual void begin(const Sequences&, float*) const {}
  virtual void state_after(const float*, int, float*) const {}

  // Both [rows of a block, out_stride]; `kept` is what the derivative of the activation is computed from.
  float* output(float* outputs) const { return outputs + output_; }
  const float* output(const float* outputs) const { return outputs + output_; }
  float* kept(float* outputs) const { return outputs + kept_; }

  // Where the gradients by its output belong.
  Target target(float* outputs) const { return {output(outputs), activation, kept(outputs)}; }

  // Copies what `as` makes of what there is for each input, in PyTorch's order, into a row in the order here.
  template <class From, class To, class As>
  void arrange(const From* values, To* row, As as) const {
    const int places = in / channels;
    for (int channel = 0; channel < channels; ++channel)
      for (int place = 0; place < places; ++place) row[place * channels + channel] = as(*values++);
  }

  template <class Value>
  void arrange(const Value* values, Value* row) const {
    arrange(values, row, [](Value value) { return value; });
  }

  // Where, in PyTorch's order, what is `i`-th in the order here is.
  int arranged(int i) const { return channels == 1 ? i : i % channels * (in / channels) + i / channels; }

  // The way back: adds a row to what there is for each input.
  void add_arranged(const float* row, float* values) const {
    const int places = in / channels;
    for (int channel = 0; channel < channels; ++channel)
      for (int place = 0; place < places; ++place) *values++ += row[place * channels + channel];
  }

 protected:
  Layer(const LayerConfig& config, ptrdiff_t size, Rooms& rooms)
      : in(config.inputs), out(config.outputs), in_stride(row_stride(in)), out_stride(row_stride(out)),
        activation(config.activation), channels(config.channels), first(config.first), size(size),
        output_(rooms.outputs.take((rooms.rows + 1) * out_stride)),
        kept_(with_activation(activation, [](auto a) { return a.KEEPS_INPUT; })
                  ? rooms.outputs.take((rooms.rows + 1) * out_stride)
                  : output_) {}

  // Calls `use(end)`: `end(row, column, v)` applies the activation to what becomes the output.
  template <class Use>
  void finish(float* outputs, Use use) const {
    with_activation(activation, [&](auto a) {
      if constexpr (a.KEEPS_INPUT)
        use([a, stride = out_stride, to = output(outputs), kept = kept(outputs)](int m, int n, vec v) {
          store(kept + m * stride + n, v);
          store(to + m * stride + n, a.of(v));
        });
      else
        use([a, stride = out_stride, to = output(outputs)](int m, int n, vec v) { store(to + m * stride + n, a.of(v)); });
    });
  }

 private:
  const ptrdiff_t output_, kept_;
};

}  // namespace esper
