// Calls every function of the kernels with several threads; `make sanitize` builds it with sanitizers and runs it,
// `make arm` for another processor, in emulation: with an argument, it prints what was computed.
// Arrays are exactly as long as the kernels may read and write, so that a step beyond is seen.
#include <cstdio>
#include <random>

#include "../../../src/esper/simic/engines/native/kernels/esper.cpp"

namespace {

using Floats = std::vector<float>;
std::mt19937 generator(1);
bool printing = false;

Floats normal(size_t count) {
  std::normal_distribution<float> distribution;
  Floats values(count);
  for (float& value : values) value = distribution(generator);
  return values;
}

Floats uniform(size_t count) {
  std::uniform_real_distribution<float> distribution;
  Floats values(count);
  for (float& value : values) value = distribution(generator);
  return values;
}

Floats byte_values_below(float highest) {
  Floats values(256);
  for (int i = 0; i < 256; ++i) values[i] = i / highest;
  return values;
}

// Long pieces of them are mostly 0.
std::vector<uint8_t> pixels(size_t count, float highest) {
  std::vector<uint8_t> values(count);
  for (size_t i = 0; i < count; ++i)
    if (i / 1000 % 2 || generator() % 20 == 0) values[i] = uint8_t(generator() % (int(highest) + 1));
  return values;
}

struct Filters {
  int32_t count, kernel, stride;
};

// The size of `values`, and a sum that tells their places apart. Without infinity, which NaN makes of metrics.
void print(const char* name, const Floats& values) {
  if (!printing) return;
  double size = 0, sum = 0;
  for (size_t i = 0; i < values.size(); ++i)
    if (std::isfinite(values[i])) size += std::abs(values[i]), sum += values[i] * (int(i % 7) - 3);
  std::printf("%s %.9g %.9g\n", name, size, sum);
}

// A network with its parameters, and an optimizer's state.
struct Shape {
  bool shared = false, normalized = false;
  int32_t rnn = LINEAR, rnn_size = 0, steps = 0;  // a recurrent layer above the hidden ones, and its sequences
  int32_t channels = 1, side = 0;                 // of square images
  std::vector<Filters> filters{};                 // of convolutions below the hidden layers
  float highest = 0;                              // of bytes, if observations are
};

struct Subject {
  std::vector<LayerConfig> layers[GROUPS];
  Floats parameters[GROUPS], exp_avg[GROUPS], exp_avg_sq[GROUPS], quantiles{0.05f, 0.25f, 0.5f, 0.75f, 0.95f};
  Learner* learner;
  std::vector<int32_t> choices;  // none: numbers
  int observation, actions, groups, steps;
  float highest;

  Subject(int observation, std::vector<int32_t> hidden, int actions, std::vector<int32_t> choices,
          Activation activation, Shape shape = {})
      : choices(choices), observation(observation), actions(actions), groups(shape.shared ? 3 : 2), steps(shape.steps),
        highest(shape.highest) {
    const bool discrete = !choices.empty(), shared = shape.shared;
    LearnerConfig config{};
    for (int g = 0; g < groups; ++g) {
      int64_t count = 0;
      int32_t width = observation, channels = 1, side = shape.side;
      const auto add = [&](int32_t outputs, int32_t activation, bool normalized) {
        layers[g].push_back({LINEAR, width, outputs, normalized ? IDENTITY : activation, count, channels});
        channels = 1;
        count += int64_t(outputs) * (width + 1);
        width = outputs;
        if (!normalized) return;
        layers[g].push_back({LAYER_NORM, width, width, activation, count});
        count += 2 * width;
      };
      if (shared && g != SHARED) width = shape.rnn_size ? shape.rnn_size : hidden.back();
      if (shared == (g == SHARED)) {
        for (const auto [filters, kernel, stride] : shape.filters) {
          channels = layers[g].empty() ? shape.channels : channels;
          const int32_t after = (side - kernel) / stride + 1, outputs = filters * after * after;
          layers[g].push_back({CONVOLUTION, width, outputs, activation, count, channels, side, kernel, stride});
          count += int64_t(filters) * (channels * kernel * kernel + 1);
          width = outputs, channels = filters, side = after;
        }
        for (int32_t size : hidden) add(size, activation, shape.normalized);
        if (const int32_t size = shape.rnn_size) {
          layers[g].push_back({shape.rnn, width, size, IDENTITY, count, channels});
          channels = 1;
          count += shape.rnn == LSTM ? 4 * size * (width + size + 1) : 3 * size * (width + size + 1) + size;
          width = size;
        }
      }
      if (g != SHARED) add(g == POLICY ? actions : 1, IDENTITY, false);
      if (g == POLICY) config.log_std = discrete ? -1 : count;
      if (g == POLICY && !discrete) count += actions;
      parameters[g] = normal(count);
      for (float& parameter : parameters[g]) parameter *= 0.3f;
      exp_avg[g].resize(count), exp_avg_sq[g].resize(count);
      config.parameters[g] = count;
      config.networks[g] = {int32_t(layers[g].size()), layers[g].data()};
    }
    config.groups = groups, config.choices = int32_t(choices.size()), config.choice_sizes = choices.data();
    config.sequence_steps = shape.steps;
    config.normalize_advantages = 1, config.adam_eps = 1e-5f, config.max_grad_norm = 0.5f;
    config.quantile_count = int32_t(quantiles.size()), config.quantiles = quantiles.data();
    learner = esper_learner(&config);
    pack();
  }
  ~Subject() { esper_learner_delete(learner); }
  Subject(const Subject&) = delete;

  void pack() {
    const float* addresses[] = {parameters[0].data(), parameters[1].data(), parameters[2].data()};
    esper_pack(learner, addresses);
  }
};

// Rows of a batch, or sequences, and what was allowed in them.
struct Rows {
  Floats obs, noise, log_probs, values, advantages, returns, real, values_of_bytes;
  std::vector<int64_t> chosen;
  std::unique_ptr<bool[]> allowed;
  void* actions;
  std::vector<uint8_t> bytes;

  Rows(const Subject& subject, int64_t rows, bool with_nan)
      : obs(normal(rows * subject.observation)), noise(normal(rows * subject.actions)), log_probs(rows), values(rows),
        advantages(normal(rows)), returns(normal(rows)), real(rows * subject.actions),
        chosen(rows * subject.choices.size()), actions(real.data()) {
    if (!subject.choices.empty()) {
      actions = chosen.data();
      allowed.reset(new bool[rows * subject.actions]);
      for (int64_t i = 0, first = 0; i < rows; ++i)
        for (int32_t size : subject.choices) {
          for (int32_t j = 0; j < size; ++j) allowed[first + j] = !j || generator() % 2;
          first += size;
        }
    }
    if (with_nan) obs[rows / 2] = advantages[rows / 3] = NAN;
    if (!subject.highest) return;
    bytes = pixels(obs.size(), subject.highest);
    values_of_bytes = byte_values_below(subject.highest);
  }

  const void* seen() const { return bytes.empty() ? static_cast<const void*>(obs.data()) : bytes.data(); }
  const float* byte_values() const { return bytes.empty() ? nullptr : values_of_bytes.data(); }

  // Actions for the first `rows`.
  void act(const Subject& subject, int64_t rows, const float* noise, float* states) {
    const Normalizer normalizer{nullptr, nullptr, 0.0f, byte_values()};
    esper_act(subject.learner, &normalizer, seen(), !bytes.empty(), rows, noise, allowed.get(), actions, states);
  }

  Batch batch() const {
    return {seen(), byte_values(), actions, log_probs.data(), values.data(), advantages.data(), returns.data(), allowed.get(),
            nullptr, nullptr, nullptr};
  }
};

// Steps on minibatches of `minibatch` of so many rows, or sequences.
void optimize(Subject& subject, const Batch& batch, int64_t rows, int64_t minibatch, int threads, bool with_nan) {
  std::vector<int64_t> indices(rows);
  for (int64_t i = 0; i < rows; ++i) indices[i] = i;
  std::shuffle(indices.begin(), indices.end(), generator);
  const int64_t steps = rows / minibatch;
  Floats metrics(steps * (LOSS_METRICS + subject.groups + 1 + subject.quantiles.size()));
  float step = 0, rate = 1e-3f, clip = 0.2f, coefficient = 0.5f, stepping = 1, finite = 1, factor = 1;
  State state{};
  for (int g = 0; g < subject.groups; ++g) {
    state.parameters[g] = subject.parameters[g].data(), state.exp_avg[g] = subject.exp_avg[g].data();
    state.exp_avg_sq[g] = subject.exp_avg_sq[g].data();
    state.learning_rates[g] = &rate, state.factors[g] = &factor;
  }
  state.step = &step, state.clip_coef = state.value_clip_coef = &clip;
  state.entropy_coef = state.value_coef = &coefficient, state.stepping = &stepping, state.finite = &finite;
  esper_optimize(subject.learner, &batch, &state, indices.data(), steps, minibatch, metrics.data(), threads);
  if (finite == float(with_nan)) std::printf("the update should have seen NaN: %d\n", with_nan), std::exit(1);
  if (!with_nan) print("metrics", metrics);
  for (int g = 0; g < subject.groups && !with_nan; ++g) print("parameters", subject.parameters[g]);
}

void update(Subject& subject, int64_t rows, int64_t minibatch, int threads, bool with_nan) {
  Rows made(subject, rows, with_nan);
  made.act(subject, rows, made.noise.data(), nullptr);
  made.act(subject, rows, nullptr, nullptr);
  const Batch batch = made.batch();
  esper_evaluate(subject.learner, &batch, rows, made.log_probs.data(), made.values.data(), threads);
  if (!with_nan) print("log_probs", made.log_probs), print("values", made.values);
  optimize(subject, batch, rows, minibatch, threads, with_nan);
}

void update_sequences(Subject& subject, int64_t sequences, int64_t minibatch, int threads, bool with_nan) {
  const int64_t steps = subject.steps, rows = steps * sequences, state_size = subject.learner->networks().state_size();
  Rows made(subject, rows, with_nan);
  Floats states = normal(sequences * state_size), acting = states, final_obs = normal(rows * subject.observation);
  made.act(subject, sequences, made.noise.data(), acting.data());
  const auto random = [](int64_t count) {
    std::unique_ptr<bool[]> made(new bool[count]);
    for (int64_t i = 0; i < count; ++i) made[i] = generator() % 5 == 0;
    return made;
  };
  const auto begins = random(rows + sequences), terminated = random(rows), truncated = random(rows);
  std::vector<int64_t> selected(rows);
  for (int64_t& step : selected) step = generator() % steps;
  Batch batch = made.batch();
  batch.recurrent_state = states.data(), batch.begins = begins.get();
  Floats obs = made.obs, next_values(rows);
  std::vector<uint8_t> bytes = made.bytes;
  obs.resize((rows + sequences) * subject.observation);
  if (subject.highest) bytes.resize(obs.size());
  const auto either = [](auto& floats, auto& bytes) {
    return bytes.empty() ? static_cast<const void*>(floats.data()) : bytes.data();
  };
  batch.obs = either(obs, bytes);
  const Ends ends{either(final_obs, made.bytes), terminated.get(), truncated.get()};
  esper_evaluate_rollout(subject.learner, &batch, &ends, steps, sequences, made.log_probs.data(), made.values.data(),
                         next_values.data(), threads);
  if (!with_nan) print("log_probs", made.log_probs), print("next_values", next_values);
  batch.obs = made.seen();
  std::fill(made.log_probs.begin(), made.log_probs.end(), 0.0f);
  optimize(subject, batch, sequences, minibatch, threads, with_nan);
  subject.pack();
  batch.selected = selected.data();
  optimize(subject, batch, sequences, minibatch, threads, with_nan);
}

std::vector<int32_t> choices_of(bool discrete, int32_t actions) {
  return discrete ? std::vector<int32_t>{actions} : std::vector<int32_t>{};
}

template <class Env>
void walk_through(int index, int actions, int threads, const Shape& shape = {}) {
  Subject subject(Env::OBSERVATION, {16, 9}, actions, choices_of(Env::DISCRETE, actions), TANH, shape);
  const int64_t steps = 12, envs = 3 * BLOCK + 5, rows = steps * envs;
  Floats mean = normal(Env::OBSERVATION), deviation(Env::OBSERVATION, 2.0f), state(envs * Env::STATE);
  constexpr bool VECTOR = std::is_same_v<typename Env::Value, float>;
  const Floats values_of_bytes = byte_values_below(1);
  const float* byte_values = VECTOR ? nullptr : values_of_bytes.data();
  std::vector<typename Env::Value> obs((steps + 1) * envs * Env::OBSERVATION), final_obs(rows * Env::OBSERVATION);
  Floats rewards(rows), real(rows), noise = normal(rows * actions), values = normal(rows);
  Floats draws = uniform(rows * (Env::STEP_DRAWS + Env::BEGIN_DRAWS)), starts = uniform(envs * Env::BEGIN_DRAWS);
  for (int64_t e = 0; e < envs; ++e) Env::begin(starts.data() + e * Env::BEGIN_DRAWS, state.data() + e * Env::STATE);
  std::vector<int64_t> chosen(rows);
  std::vector<int32_t> ages(envs);
  std::unique_ptr<bool[]> terminated(new bool[rows]), truncated(new bool[rows]), resets(new bool[rows]);
  std::unique_ptr<bool[]> begins(new bool[rows + envs]());
  Floats recurrent_state = normal(envs * subject.learner->networks().state_size());
  void* out = Env::DISCRETE ? static_cast<void*>(chosen.data()) : real.data();
  const Rollout rollout{obs.data(), out, rewards.data(), terminated.get(), truncated.get(),
                        final_obs.data(), state.data(), ages.data(), noise.data(), draws.data(),
                        shape.rnn_size ? recurrent_state.data() : nullptr, begins.get(), resets.get()};
  for (const float* instead : {(const float*)nullptr, byte_values}) {
    const Normalizer normalizer{mean.data(), deviation.data(), 10.0f, instead};
    esper_roll_out(subject.learner, &normalizer, index, &rollout, steps, envs, 5, threads);
  }
  const auto floats = [](auto& values) { return VECTOR ? reinterpret_cast<const float*>(values.data()) : nullptr; };
  const Inputs inputs{floats(obs), floats(final_obs), rewards.data(), Env::DISCRETE ? nullptr : real.data(),
                      terminated.get(), truncated.get()};
  if (!esper_inputs_are_finite(&inputs, steps, envs, Env::OBSERVATION, actions)) std::printf("finite\n"), std::exit(1);
  Floats advantages(rows), returns(rows);
  esper_advantages(rewards.data(), values.data(), values.data(), terminated.get(), truncated.get(), steps, envs, 0.99f,
                   0.95f, advantages.data(), returns.data());
  float explained;
  esper_explained_variance(returns.data(), values.data(), rows, 0.02, &explained);
  print("state", state), print("rewards", rewards), print("advantages", advantages), print("returns", returns);
  print("explained_variance", {explained});
  if (shape.rnn_size) return;
  Batch batch{};
  batch.obs = obs.data(), batch.byte_values = byte_values, batch.actions = out;
  const Ends ends{final_obs.data(), terminated.get(), truncated.get()};
  esper_evaluate_rollout(subject.learner, &batch, &ends, steps, envs, values.data(), advantages.data(), returns.data(),
                         threads);
}

}  // namespace

int main(int arguments, char**) {
  printing = arguments > 1;
  if (!std::strstr(esper_layout(), "LearnerConfig.quantiles ")) std::printf("no layout\n"), std::exit(1);
  for (int threads : {1, 2, 5}) {
    for (bool discrete : {true, false})
      for (bool with_nan : {false, true}) {
        const auto choices = [=](int32_t actions) { return choices_of(discrete, actions); };
        Subject tanh(4, {64, 64}, 3, choices(3), TANH), relu(17, {33, 17, 5}, 6, choices(6), RELU);
        Subject shared(5, {33, 64}, 9, discrete ? std::vector<int32_t>{2, 3, 4} : choices(9), TANH, {.shared = true});
        Subject elu(4, {20, 3}, 3, choices(3), ELU, {.normalized = true}), gelu(4, {17}, 3, choices(3), GELU);
        Subject silu(4, {64, 33}, 3, choices(3), SILU, {.shared = true, .normalized = true});
        Subject wide(128, {130}, 1, choices(1), RELU), linear(1, {}, 2, choices(2), TANH);
        for (Subject* subject : {&tanh, &relu, &shared, &elu, &gelu, &silu, &wide, &linear}) {
          update(*subject, 2048, 512, threads, with_nan);
          subject->pack();
        }
        update(tanh, 70, 35, threads, with_nan);  // no whole block
        update(relu, 8, 2, threads, false);
        Subject lstm(4, {9}, 3, choices(3), TANH, {.rnn = LSTM, .rnn_size = 17, .steps = 11});
        Subject gru(4, {}, 3, choices(3), TANH, {.shared = true, .rnn = GRU, .rnn_size = 33, .steps = 1});
        Subject normalized(3, {6}, 2, choices(2), SILU, {.normalized = true, .rnn = GRU, .rnn_size = 3, .steps = 5});
        for (Subject* subject : {&lstm, &gru, &normalized}) update_sequences(*subject, 40, 20, threads, with_nan);
        const Shape one{.channels = 4, .side = 10, .filters = {{16, 3, 1}}, .highest = 1};
        const Shape three{.shared = true, .channels = 3, .side = 11, .filters = {{32, 4, 2}, {16, 2, 1}, {48, 3, 1}}};
        Subject small(400, {9}, 3, choices(3), RELU, one), deep(363, {20}, 3, choices(3), GELU, three);
        Subject alone(363, {}, 3, choices(3), ELU, {.channels = 3, .side = 11, .filters = {{16, 5, 3}}, .highest = 255});
        for (Subject* subject : {&small, &deep, &alone}) update(*subject, 270, 135, threads, with_nan);
        Subject remembering(400, {}, 3, choices(3), SILU,
                            {.rnn = GRU, .rnn_size = 7, .steps = 4, .channels = 4, .side = 10, .filters = {{16, 3, 1}}, .highest = 9});
        update_sequences(remembering, 20, 10, threads, with_nan);
      }
    walk_through<CartPole>(0, 2, threads);
    walk_through<CartPole>(0, 2, threads, {.rnn = GRU, .rnn_size = 7, .steps = 12});
    walk_through<Acrobot>(1, 3, threads);
    walk_through<Pendulum>(2, 1, threads);
    walk_through<MountainCar>(3, 3, threads);
    walk_through<MountainCarContinuous>(4, 1, threads);
    walk_through<Breakout>(5, 3, threads);
    walk_through<SpaceInvaders>(6, 4, threads);
    walk_through<Asterix>(7, 5, threads);
    walk_through<Freeway>(8, 3, threads);
    walk_through<Seaquest>(9, 6, threads);
    walk_through<Breakout>(5, 3, threads, {.channels = 4, .side = 10, .filters = {{16, 3, 1}}});
    walk_through<SpaceInvaders>(6, 4, threads, {.rnn = LSTM, .rnn_size = 7, .steps = 12, .channels = 6, .side = 10,
                                                .filters = {{16, 3, 1}, {32, 2, 2}}, .highest = 1});
  }
}
