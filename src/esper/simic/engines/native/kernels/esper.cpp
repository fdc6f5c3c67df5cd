// What the library offers, with C's calling conventions.
#include "layout.h"

using namespace esper;

extern "C" {

const char* esper_layout() {
  static const std::string text = layout();
  return text.c_str();
}

Learner* esper_learner(const LearnerConfig* config) { return new Learner(*config); }

void esper_learner_delete(Learner* learner) { delete learner; }

void esper_pack(Learner* learner, const float* const* parameters) { learner->pack(parameters); }

void esper_evaluate(Learner* learner, const Batch* batch, int64_t rows, float* log_probs, float* values,
                    int32_t threads) {
  learner->evaluate(*batch, rows, log_probs, values, threads);
}

void esper_optimize(Learner* learner, const Batch* batch, const State* state, const int64_t* indices, int64_t steps,
                    int64_t rows, float* metrics, int32_t threads) {
  learner->optimize(*batch, *state, indices, steps, rows, metrics, threads);
}

void esper_evaluate_rollout(const Learner* learner, const Batch* rollout, const Ends* ends, int64_t num_steps,
                            int64_t num_envs, float* log_probs, float* values, float* next_values, int32_t threads) {
  evaluate_rollout(*learner, *rollout, *ends, num_steps, num_envs, {log_probs, values, next_values}, threads);
}

void esper_act(Learner* learner, const Normalizer* normalizer, const void* obs, int32_t are_bytes, int64_t rows,
               const float* noise, const bool* masks, void* actions, float* states) {
  Actor actor(*learner, *normalizer, learner->acting());
  const Head& head = learner->head();
  for (int64_t first = 0; first < rows; first += BLOCK) {
    const auto act = [&](const auto* obs) {
      actor.act(obs + first * learner->observation_size(), int(std::min<int64_t>(BLOCK, rows - first)),
                noise ? noise + first * head.outputs() : nullptr, masks ? masks + first * head.outputs() : nullptr,
                static_cast<char*>(actions) + first * head.action_bytes(),
                states ? states + first * learner->networks().state_size() : nullptr);
    };
    are_bytes ? act(static_cast<const uint8_t*>(obs)) : act(static_cast<const float*>(obs));
  }
}

void esper_roll_out(const Learner* learner, const Normalizer* normalizer, int32_t environment, const Rollout* rollout,
                    int64_t num_steps, int64_t num_envs, int64_t max_episode_steps, int32_t threads) {
  roll_out(*learner, *normalizer, ENVIRONMENTS[environment].walk, *rollout, {num_steps, num_envs, max_episode_steps}, threads);
}

int32_t esper_inputs_are_finite(const Inputs* inputs, int64_t num_steps, int64_t num_envs, int64_t observation_size,
                                int64_t action_size) {
  return inputs->are_finite(num_steps, num_envs, observation_size, action_size);
}

void esper_advantages(const float* rewards, const float* values, const float* next_values, const bool* terminated,
                      const bool* truncated, int64_t num_steps, int64_t num_envs, float gamma, float gae_lambda,
                      float* advantages, float* returns) {
  estimate_advantages(rewards, values, next_values, terminated, truncated, num_steps, num_envs, gamma, gae_lambda,
                      advantages, returns);
}

void esper_explained_variance(const float* returns, const float* values, int64_t rows, double least_deviation,
                              float* explained) {
  *explained = explained_variance(returns, values, rows, least_deviation);
}

}  // extern "C"
