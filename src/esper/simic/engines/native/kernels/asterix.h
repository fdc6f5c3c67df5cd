// esper.envs.device.minatar.asterix for one copy at a time.
#pragma once
#include "minatar.h"

namespace esper {

struct AsterixState {
  float last_action, x, y, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, odd, there[8], column[8],
      right[8], gold[8];
};

struct Asterix : MinAtar<Asterix, AsterixState, 4, 3, 0> {
  using State = AsterixState;

  static void start(const float*, State& s) {
    s.x = s.y = 5;
    s.spawn_speed = s.spawn_timer = 10;
    s.move_speed = s.move_timer = 5;
    s.ramp_timer = 100;
  }

  static float play(State& s, int action, const float* uniform, bool& lost) {
    const bool spawns = s.spawn_timer == 0, moves = s.move_timer == 0;
    if (spawns) spawn(s, uniform);
    s.x = in_grid(s.x + float(action == 3) - float(action == 1));
    s.y = std::min(std::max(s.y + float(action == 4) - float(action == 2), 1.0f), 8.0f);
    const int player = int(s.y) - 1;
    float reward = meet(s, player, lost);
    if (moves) {
      for (int lane = 0; lane < 8; ++lane) {
        if (!s.there[lane]) continue;
        s.column[lane] += s.right[lane] > 0 ? 1.0f : -1.0f;
        s.there[lane] = inside(s.column[lane]);
      }
      reward += meet(s, player, lost);
    }
    // What has gone leaves nothing behind, as in Python.
    for (int lane = 0; lane < 8; ++lane)
      if (!s.there[lane]) s.column[lane] = s.right[lane] = s.gold[lane] = 0;
    s.spawn_timer = (spawns ? s.spawn_speed : s.spawn_timer) - 1;
    s.move_timer = (moves ? s.move_speed : s.move_timer) - 1;
    become_harder(s);
    return reward;
  }

  static void draw(const State& s, uint8_t (*channels)[10][10]) {
    channels[0][int(s.y)][int(s.x)] = 1;
    for (int lane = 0; lane < 8; ++lane) {
      if (!s.there[lane]) continue;
      const float column = s.column[lane], behind = column - (s.right[lane] > 0 ? 1.0f : -1.0f);
      channels[s.gold[lane] > 0 ? 3 : 1][lane + 1][int(column)] = 1;
      if (inside(behind)) channels[2][lane + 1][int(behind)] = 1;
    }
  }

 private:
  static void spawn(State& s, const float* uniform) {
    int skipped = int(whole(uniform[2], int(std::count(s.there, s.there + 8, 0.0f))));
    for (int lane = 0; lane < 8; ++lane) {
      if (s.there[lane] || skipped-- > 0) continue;
      s.there[lane] = 1;
      s.right[lane] = uniform[0] < 0.5f;
      s.column[lane] = s.right[lane] ? 0.0f : 9.0f;
      s.gold[lane] = uniform[1] < 1.0f / 3;
      return;
    }
  }

  static float meet(State& s, int lane, bool& lost) {
    if (!s.there[lane] || s.column[lane] != s.x) return 0;
    lost |= !s.gold[lane];
    if (s.gold[lane]) s.there[lane] = 0;
    return !s.there[lane];
  }

  static void become_harder(State& s) {
    if (s.spawn_speed <= 1 && s.move_speed <= 1) return;
    if (s.ramp_timer >= 0) {
      --s.ramp_timer;
      return;
    }
    if (s.odd) s.move_speed = std::max(s.move_speed - 1, 1.0f);
    s.spawn_speed = std::max(s.spawn_speed - 1, 1.0f);
    s.odd = 1 - s.odd;
    s.ramp_timer = 100;
  }
};

}  // namespace esper
