// Activations, with their derivatives by what a layer keeps of a row: its output, or where that does not say enough, the
// activation's input.
#pragma once
#include <cstdint>

#include "simd.h"

namespace esper {

struct Identity {
  static constexpr bool KEEPS_INPUT = false;
  static vec of(vec x) { return x; }
  static vec gradient(vec by_output, vec) { return by_output; }
};

struct Tanh {
  static constexpr bool KEEPS_INPUT = false;
  // The square of a tanh from 7.8 on. It never becomes 1 here, so its derivative is taken to be 0, as it is in torch
  // from 9.1 on: a huge observation would multiply what is left of it.
  static constexpr float SATURATED = 0.9999993f;

  static vec of(vec x) { return tanh(x); }
  static vec gradient(vec by_output, vec y) {
    const vec squared = y * y;
    return squared > SATURATED ? vec{} : by_output - by_output * y * y;
  }
};

struct Relu {
  static constexpr bool KEEPS_INPUT = false;
  static vec of(vec x) { return x < 0.0f ? vec{} : x; }
  static vec gradient(vec by_output, vec y) { return y > 0.0f ? by_output : vec{}; }
};

enum Activation : int32_t { IDENTITY, TANH, RELU };
constexpr const char* ACTIVATION_NAMES[] = {"identity", "tanh", "relu"};

// What `use` returns for the activation of this number.
template <class Use>
inline auto with_activation(int32_t activation, Use use) {
  switch (activation) {
    case TANH: return use(Tanh{});
    case RELU: return use(Relu{});
    default: return use(Identity{});
  }
}

}  // namespace esper
