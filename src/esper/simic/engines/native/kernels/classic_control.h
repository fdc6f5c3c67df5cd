// Classic control for one copy at a time, in float: what esper.envs.device.dynamics says for all copies together.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace esper {

constexpr float PI = 3.14159265358979323846f;

inline float bounded(float x, float low, float high) { return std::min(std::max(x, low), high); }

// Each environment: `begin` an episode, `step` it, `observe` it. BEGIN_DRAWS and STEP_DRAWS are how many numbers in
// [0, 1) are drawn for it. Observations are of Value.
struct ClassicControl {
  using Value = float;
  static constexpr int STEP_DRAWS = 0;
};

struct CartPole : ClassicControl {
  static constexpr int STATE = 4, BEGIN_DRAWS = 4, OBSERVATION = 4;
  static constexpr bool DISCRETE = true;

  static void begin(const float* uniform, float* s) {
    for (int i = 0; i < STATE; ++i) s[i] = uniform[i] * 0.1f - 0.05f;
  }
  static float step(float* s, int64_t action, const float*, bool& terminated) {
    constexpr float gravity = 9.8f, mass = 1.1f, pole_mass = 0.1f, half_length = 0.5f, tau = 0.02f;
    constexpr float moment = pole_mass * half_length, angle_limit = 12 * 2 * PI / 360;
    const float force = action ? 10.0f : -10.0f, cosine = std::cos(s[2]), sine = std::sin(s[2]);
    const float push = (force + moment * s[3] * s[3] * sine) / mass;
    const float angle_acc = (gravity * sine - cosine * push) /
                            (half_length * (4.0f / 3.0f - pole_mass * cosine * cosine / mass));
    const float acc = push - moment * angle_acc * cosine / mass;
    s[0] += tau * s[1];
    s[1] += tau * acc;
    s[2] += tau * s[3];
    s[3] += tau * angle_acc;
    terminated = std::fabs(s[0]) > 2.4f || std::fabs(s[2]) > angle_limit;
    return 1.0f;
  }
  static void observe(const float* s, float* obs) { std::copy(s, s + STATE, obs); }
};

struct Acrobot : ClassicControl {
  static constexpr int STATE = 4, BEGIN_DRAWS = 4, OBSERVATION = 6;
  static constexpr bool DISCRETE = true;

  static void begin(const float* uniform, float* s) {
    for (int i = 0; i < STATE; ++i) s[i] = uniform[i] * 0.2f - 0.1f;
  }
  static float step(float* s, int64_t action, const float*, bool& terminated) {
    constexpr float dt = 0.2f;
    const float torque = float(action - 1);
    float k[4][STATE], at[STATE];
    derivative(s, torque, k[0]);
    for (int stage = 1; stage < 4; ++stage) {
      const float h = stage < 3 ? dt / 2 : dt;
      for (int i = 0; i < STATE; ++i) at[i] = s[i] + h * k[stage - 1][i];
      derivative(at, torque, k[stage]);
    }
    for (int i = 0; i < STATE; ++i) s[i] += dt / 6 * (k[0][i] + 2 * k[1][i] + 2 * k[2][i] + k[3][i]);
    s[0] = wrapped(s[0]);
    s[1] = wrapped(s[1]);
    s[2] = bounded(s[2], -4 * PI, 4 * PI);
    s[3] = bounded(s[3], -9 * PI, 9 * PI);
    terminated = -std::cos(s[0]) - std::cos(s[1] + s[0]) > 1.0f;
    return terminated ? 0.0f : -1.0f;
  }
  static void observe(const float* s, float* obs) {
    const float values[] = {std::cos(s[0]), std::sin(s[0]), std::cos(s[1]), std::sin(s[1]), s[2], s[3]};
    std::copy(values, values + OBSERVATION, obs);
  }

 private:
  static void derivative(const float* s, float torque, float* d) {
    constexpr float c = 0.5f, g = 9.8f;
    const float cosine = std::cos(s[1]), sine = std::sin(s[1]);
    const float d1 = c * c + (1 + c * c + 2 * c * cosine) + 2, d2 = c * c + c * cosine + 1;
    const float phi2 = c * g * std::cos(s[0] + s[1] - PI / 2);
    const float phi1 = -c * s[3] * s[3] * sine - 2 * c * s[3] * s[2] * sine +
                       (c + 1) * g * std::cos(s[0] - PI / 2) + phi2;
    d[0] = s[2];
    d[1] = s[3];
    d[3] = (torque + d2 / d1 * phi1 - c * s[2] * s[2] * sine - phi2) / (c * c + 1 - d2 * d2 / d1);
    d[2] = -(d2 * d[3] + phi1) / d1;
  }
  // Speeds are bounded, so an angle leaves the circle by less than two turns.
  static float wrapped(float angle) {
    for (int turn = 0; turn < 2; ++turn) {
      if (angle > PI) angle -= 2 * PI;
      if (angle < -PI) angle += 2 * PI;
    }
    return angle;
  }
};

struct Pendulum : ClassicControl {
  static constexpr int STATE = 2, BEGIN_DRAWS = 2, OBSERVATION = 3;
  static constexpr bool DISCRETE = false;

  static void begin(const float* uniform, float* s) {
    s[0] = (uniform[0] * 2 - 1) * PI;
    s[1] = uniform[1] * 2 - 1;
  }
  static float step(float* s, float action, const float*, bool& terminated) {
    constexpr float dt = 0.05f;
    const float torque = bounded(action, -2.0f, 2.0f), turned = s[0] + PI;
    const float upright = turned - std::floor(turned / (2 * PI)) * (2 * PI) - PI;
    const float cost = upright * upright + 0.1f * s[1] * s[1] + 0.001f * torque * torque;
    s[1] = bounded(s[1] + (15.0f * std::sin(s[0]) + 3.0f * torque) * dt, -8.0f, 8.0f);
    s[0] += s[1] * dt;
    terminated = false;
    return -cost;
  }
  static void observe(const float* s, float* obs) {
    obs[0] = std::cos(s[0]);
    obs[1] = std::sin(s[0]);
    obs[2] = s[1];
  }
};

// A car in a valley; the left wall stops it.
struct Mountain : ClassicControl {
  static constexpr int STATE = 2, BEGIN_DRAWS = 2, OBSERVATION = 2;

  static void begin(const float* uniform, float* s) {
    s[0] = uniform[0] * 0.2f - 0.6f;
    s[1] = 0.0f;
  }
  static bool drive(float* s, float push, float goal) {
    s[1] = bounded(s[1] + push - 0.0025f * std::cos(3 * s[0]), -0.07f, 0.07f);
    s[0] = bounded(s[0] + s[1], -1.2f, 0.6f);
    if (s[0] == -1.2f && s[1] < 0) s[1] = 0.0f;
    return s[0] >= goal && s[1] >= 0;
  }
  static void observe(const float* s, float* obs) { std::copy(s, s + STATE, obs); }
};

struct MountainCar : Mountain {
  static constexpr bool DISCRETE = true;
  static float step(float* s, int64_t action, const float*, bool& terminated) {
    terminated = drive(s, float(action - 1) * 0.001f, 0.5f);
    return -1.0f;
  }
};

struct MountainCarContinuous : Mountain {
  static constexpr bool DISCRETE = false;
  static float step(float* s, float action, const float*, bool& terminated) {
    const float force = bounded(action, -1.0f, 1.0f);
    terminated = drive(s, force * 0.0015f, 0.45f);
    return 100.0f * terminated - 0.1f * force * force;
  }
};

}  // namespace esper
