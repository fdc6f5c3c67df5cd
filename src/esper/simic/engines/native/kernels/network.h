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

// Inputs of a first layer from which on they are looked through for numbers that are 0.
constexpr int MANY_INPUTS = 64;

inline std::unique_ptr<const Layer> make_layer(const LayerConfig& config, Rooms& rooms, bool is_first) {
  switch (config.kind) {
    case LAYER_NORM: return std::make_unique<LayerNorm>(config, rooms);
    case LSTM: return std::make_unique<Recurrent<Lstm>>(config, rooms);
    case CONVOLUTION: return std::make_unique<Convolution>(config, rooms);
    case GRU: return std::make_unique<Recurrent<Gru>>(config, rooms);
    default: return std::make_unique<Linear>(config, rooms, is_first && config.inputs >= MANY_INPUTS);
  }
}

class Network {
 public:
  std::vector<std::unique_ptr<const Layer>> layers;
  Rooms rooms;

  // For blocks of so many `rows`.
  Network(const NetworkConfig& config, int rows) {
    rooms.rows = rows;
    for (int l = 0; l < config.count; ++l) layers.push_back(make_layer(config.layers[l], rooms, l == 0));
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

  // Rows `x` through all layers into `outputs`; returns the last one's, or `x` without layers.
  const float* forward(const float* packed, const float* x, int rows, float* outputs) const {
    for (const auto& layer : layers) {
      layer->forward(packed, x, rows, outputs);
      x = layer->output(outputs);
    }
    return x;
  }

  // Adds to `gradients` those of the rows `x` that went `forward`; the last output holds the gradients by it. Overwrites
  // the outputs.
  void backward(const float* packed, const float* x, int rows, float* outputs, float* gradients,
                const Target* target) const {
    for (size_t l = layers.size(); l-- > 1;) {
      const Layer& below = *layers[l - 1];
      const Target through = below.target(outputs);
      layers[l]->backward(packed, below.output(outputs), rows, outputs, gradients, &through);
    }
    if (!empty()) front().backward(packed, x, rows, outputs, gradients, target);
  }
};

}  // namespace esper
