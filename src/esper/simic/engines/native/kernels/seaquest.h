// esper.envs.device.minatar.seaquest for one copy at a time.
#pragma once
#include <cmath>
#include <iterator>

#include "minatar.h"

namespace esper {

struct SeaquestState {
  float last_action, oxygen, aboard, x, y, right, interval, spawn_timer, diver_timer, reload;
  float leftward[10][10], rightward[10][10];
  // In the order of coming: -1 to the left, 1 to the right, 0 for none.
  struct Shots {
    float heading[2], row[2], column[2];
  } shots;
  struct Divers {
    float heading[2], row[2], column[2], timer[2];
  } divers;
  struct Enemies {
    float heading[30], row[30], column[30], timer[30], is_sub[30], reload[30];
  } enemies;
};

struct Seaquest : MinAtar<Seaquest, SeaquestState, 10, 5, 0> {
  using State = SeaquestState;

  static void start(const float*, State& s) {
    s.oxygen = 200;
    s.x = 5;
    s.interval = s.spawn_timer = 20;
    s.diver_timer = 30;
  }

  static float play(State& s, int action, const float* uniform, bool& lost) {
    const float row_before = s.y, pause = std::max(std::floor((s.interval + 1) / 2) - 5, 2.0f);
    if (s.spawn_timer == 0) {
      spawn(s, pause, uniform);
      s.spawn_timer = s.interval;
    }
    if (s.diver_timer == 0) {
      join<2>(s.divers, {from_side(uniform[3]), row(uniform[4]), edge(uniform[3]), 5});
      s.diver_timer = 30;
    }
    if (action == 5 && s.reload == 0) {
      join<2>(s.shots, {s.right > 0 ? 1.0f : -1.0f, s.y, s.x});
      s.reload = 5;
    }
    s.x = in_grid(s.x + float(action == 3) - float(action == 1));
    s.y = std::min(std::max(s.y + float(action == 4) - float(action == 2), 0.0f), 8.0f);
    if (action == 1 || action == 3) s.right = action == 3;

    float reward = move_shots(s);
    collect(s);
    reward += move_enemies(s, pause, lost);
    s.spawn_timer = std::max(s.spawn_timer - 1, 0.0f);
    s.diver_timer = std::max(s.diver_timer - 1, 0.0f);
    s.reload = std::max(s.reload - 1, 0.0f);
    lost |= s.oxygen <= 0;
    if (s.y > 0)
      --s.oxygen;
    else if (row_before > 0 && s.aboard == 0)
      lost = true;
    else if (row_before > 0)
      reward += surface(s);
    sweep<2>(s.shots);
    sweep<2>(s.divers);
    sweep<30>(s.enemies);
    return reward;
  }

  static void draw(const State& s, uint8_t (*channels)[10][10]) {
    const int behind = int(s.x) + (s.right > 0 ? -1 : 1);
    channels[0][int(s.y)][int(s.x)] = 1;
    if (inside(float(behind))) channels[1][int(s.y)][behind] = 1;
    plot<2>(s.shots, channels[2]);
    // Not `a > 0 || b > 0`: GCC 12.2 vectorizes that wrongly with -fno-trapping-math.
    for (int y = 0; y < 10; ++y)
      for (int x = 0; x < 10; ++x) channels[4][y][x] = std::max(s.leftward[y][x], s.rightward[y][x]) > 0;
    for (int i = 0; i < 30; ++i) plot(s.enemies, i, channels[s.enemies.is_sub[i] > 0 ? 6 : 5]);
    for (int x = 0; x < 10; ++x) channels[7][9][x] = float(x) < std::floor(s.oxygen / 20);
    for (int x = 0; x < 9; ++x) channels[8][9][x] = float(x) >= 9 - s.aboard;
    plot<2>(s.divers, channels[9]);
    plot<2>(s.divers, channels[3], -1);
    plot<30>(s.enemies, channels[3], -1);
  }

 private:
  static float from_side(float uniform) { return uniform < 0.5f ? 1.0f : -1.0f; }
  static float edge(float uniform) { return uniform < 0.5f ? 0.0f : 9.0f; }
  static float row(float uniform) { return 1 + whole(uniform, 8); }

  // Things are arrays with a number for each, as one array.
  template <class Things>
  static float* numbers(Things& things) {
    return reinterpret_cast<float*>(&things);
  }

  template <int SLOTS, class Things>
  static void join(Things& things, std::initializer_list<float> fields) {
    float* field = numbers(things);
    for (float value : fields) {
      std::copy(field + 1, field + SLOTS, field);
      field[SLOTS - 1] = value;
      field += SLOTS;
    }
  }

  // Who has gone leaves nothing behind.
  template <int SLOTS, class Things>
  static void sweep(Things& things) {
    float *first = numbers(things), *end = first + sizeof(Things) / sizeof(float);
    for (int i = 0; i < SLOTS; ++i)
      for (float* number = first + i; !things.heading[i] && number < end; number += SLOTS) *number = 0;
  }

  template <class Things>
  static void plot(const Things& things, int i, uint8_t (*channel)[10], int ahead = 0) {
    const float column = things.column[i] + float(ahead) * things.heading[i];
    if (things.heading[i] && inside(column)) channel[int(things.row[i])][int(column)] = 1;
  }
  template <int SLOTS, class Things>
  static void plot(const Things& things, uint8_t (*channel)[10], int ahead = 0) {
    for (int i = 0; i < SLOTS; ++i) plot(things, i, channel, ahead);
  }

  template <class Things>
  static bool meets(const Things& things, int i, float x, float y) {
    return things.heading[i] && things.row[i] == y && things.column[i] == x;
  }

  template <class Things>
  static void move(Things& things, int i) {
    things.column[i] += things.heading[i];
    if (!inside(things.column[i])) things.heading[i] = 0;
  }

  static void spawn(State& s, float pause, const float* uniform) {
    const float heading = from_side(uniform[0]), y = row(uniform[2]), is_sub = uniform[1] < 1.0f / 3;
    for (int i = 0; i < 30; ++i)
      if (s.enemies.row[i] == y && s.enemies.heading[i] == -heading) return;
    join<30>(s.enemies, {heading, y, edge(uniform[0]), pause, is_sub, 10 * is_sub});
  }

  // The first fish in the cell of a shot, or else the first submarine.
  static bool strikes(State& s, int shot, const bool* exposed) {
    if (!s.shots.heading[shot]) return false;
    for (bool subs : {false, true})
      for (int i = 0; i < 30; ++i) {
        if (!exposed[i] || (s.enemies.is_sub[i] > 0) != subs) continue;
        if (!meets(s.enemies, i, s.shots.column[shot], s.shots.row[shot])) continue;
        s.shots.heading[shot] = s.enemies.heading[i] = 0;
        return true;
      }
    return false;
  }

  static float move_shots(State& s) {
    bool all[30];
    std::fill_n(all, 30, true);
    for (int shot : {0, 1}) move(s.shots, shot);
    float kills = 0;
    for (int shot : {1, 0}) kills += strikes(s, shot, all);
    return kills;
  }

  static void collect(State& s) {
    SeaquestState::Divers& divers = s.divers;
    for (int i : {1, 0}) {
      bool met = meets(divers, i, s.x, s.y);
      if (divers.timer[i] == 0) {
        move(divers, i);
        met |= meets(divers, i, s.x, s.y);
        divers.timer[i] = 5;
      } else {
        --divers.timer[i];
      }
      if (!met || s.aboard >= 6) continue;
      divers.heading[i] = 0;
      ++s.aboard;
    }
  }

  // Submarines shoot after their move, also who leaves or is struck there.
  static float move_enemies(State& s, float pause, bool& lost) {
    SeaquestState::Enemies& enemies = s.enemies;
    bool exposed[30];
    for (int i = 0; i < 30; ++i) {
      const float heading = enemies.heading[i];
      bool met = meets(enemies, i, s.x, s.y);
      lost |= met;
      exposed[i] = heading && enemies.timer[i] == 0;
      if (exposed[i]) {
        move(enemies, i);
        met = meets(enemies, i, s.x, s.y);
        lost |= met;
        exposed[i] = !met;
        enemies.timer[i] = pause;
      } else {
        --enemies.timer[i];
      }
      if (!heading || !enemies.is_sub[i]) continue;
      if (enemies.reload[i] > 0) {
        --enemies.reload[i];
        continue;
      }
      enemies.reload[i] = 10;
      const int y = int(enemies.row[i]), x = int(enemies.column[i]);
      auto& bullets = heading > 0 ? s.rightward : s.leftward;
      if (inside(enemies.column[i])) bullets[y][x] = 1;
    }
    float kills = 0;
    for (int shot : {0, 1}) kills += strikes(s, shot, exposed);
    move_bullets(s, lost);
    return kills;
  }

  static void move_bullets(State& s, bool& lost) {
    const int x = int(s.x), y = int(s.y);
    lost |= s.leftward[y][x] > 0 || s.rightward[y][x] > 0;
    for (int line = 0; line < 10; ++line) {
      float *left = s.leftward[line], *right = s.rightward[line];
      std::copy(left + 1, left + 10, left);
      std::copy_backward(right, right + 9, right + 10);
      left[9] = right[0] = 0;
    }
    lost |= s.leftward[y][x] > 0 || s.rightward[y][x] > 0;
  }

  // Each time the game becomes harder.
  static float surface(State& s) {
    const bool full = s.aboard == 6;
    const float reward = full ? std::floor(s.oxygen / 20) : 0.0f;
    s.aboard = full ? -1.0f : s.aboard - 1;
    s.oxygen = 200;
    s.interval = std::max(s.interval - 1, 1.0f);
    return reward;
  }
};

}  // namespace esper
