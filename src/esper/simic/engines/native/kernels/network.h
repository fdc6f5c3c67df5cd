// A sequence of layers: forward, and backward into sums of gradients.
#pragma once
#include <memory>
#include <vector>

#include "convolution.h"
#include "layer_norm.h"
#include "linear.h"
#include "recurrent.h"

namespace esper {

struct NetworkConfig {
  int32_t count;
  const LayerConfig* layers;
};

enum LayerKind : int32_t { LINEAR, LAYER_NORM, LSTM, GRU, CONVOLUTION };
constexpr const char* LAYER_NAMES[] = {"linear", "layer_norm", "lstm", "gru", "convolution"};

// Observations of so many numbers may be mostly 0.
constexpr int MANY_NUMBERS = 64;

inline std::unique_ptr<const Layer> make_layer(const LayerConfig& config, Rooms& rooms, bool reads_observations) {
  switch (config.kind) {
    case LAYER_NORM: return std::make_unique<LayerNorm>(config, rooms);
    case LSTM: return std::make_unique<Recurrent<Lstm>>(config, rooms);
    case CONVOLUTION: return std::make_unique<Convolution>(config, rooms, reads_observations);
    case GRU: return std::make_unique<Recurrent<Gru>>(config, rooms);
    default: return std::make_unique<Linear>(config, rooms, reads_observations && config.inputs >= MANY_NUMBERS);
  }
}

class Network {
 public:
  std::vector<std::unique_ptr<const Layer>> layers;
  std::vector<ptrdiff_t> gradients;  // where those of each layer begin, and where they end
  Rooms rooms;

  // For blocks of so many `rows`, of observations or of features.
  Network(const NetworkConfig& config, int rows, bool reads_observations) {
    rooms.rows = rows;
    for (int l = 0; l < config.count; ++l) {
      gradients.push_back(rooms.gradients.size);
      layers.push_back(make_layer(config.layers[l], rooms, reads_observations && l == 0));
    }
    gradients.push_back(rooms.gradients.size);
  }

  bool empty() const { return layers.empty(); }
  const Layer& front() const { return *layers.front(); }
  const Layer& back() const { return *layers.back(); }

  void pack(const float* parameters, float* packed) const {
    for (const auto& layer : layers) layer->pack(parameters + layer->first, packed);
  }

  // Lets the rows that go forward next be `sequences`, of whose state its own part begins at 0.
  void begin(const Sequences& sequences, float* outputs) const {
    for (const auto& layer : layers) layer->begin(sequences, outputs);
  }

  void state_after(const float* outputs, int row, float* state) const {
    for (const auto& layer : layers) layer->state_after(outputs, row, state);
  }

  // Whether its second layer reads what is near the dots that its first one reads.
  bool reads_busy() const { return layers.size() > 1 && front().places() && layers[1]->reads_busy(); }

  // Rows `x` through all layers into `outputs`, of which it returns the last one's, or `x` without layers.
  Input forward(const float* packed, Input x, int rows, float* outputs) const {
    for (const auto& layer : layers) {
      const Busy* busy = reads_busy() ? x.busy : nullptr;
      if (x.dots)
        layer->forward_dots(packed, *x.dots, busy, rows, outputs);
      else if (busy)
        layer->forward_busy(packed, *busy, x.rows, rows, outputs);
      else
        layer->forward(packed, x.rows, rows, outputs);
      x = {layer->output(outputs), nullptr, x.dots ? busy : nullptr};
    }
    return x;
  }

  // Adds to `gradients` those of the rows `x` that went `forward`; the last output holds the gradients by it. Overwrites
  // the outputs.
  void backward(const float* packed, Input x, int rows, float* outputs, float* gradients, const Target* target) const {
    const Busy* busy = reads_busy() ? x.busy : nullptr;
    for (size_t l = layers.size(); l-- > 1;) {
      const Layer& below = *layers[l - 1];
      const Target through = below.target(outputs);
      if (l == 1 && busy)
        layers[l]->backward_busy(packed, *busy, below.output(outputs), rows, outputs, gradients, through);
      else
        layers[l]->backward(packed, below.output(outputs), rows, outputs, gradients, &through);
    }
    if (empty()) return;
    if (x.dots)
      front().backward_dots(*x.dots, busy, rows, outputs, gradients);
    else
      front().backward(packed, x.rows, rows, outputs, gradients, target);
  }
};

}  // namespace esper
