#include "tuner/problem_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <utility>

namespace kgen {
namespace {

std::string problem_key(const OpSpec& spec) {
  return signature(*spec.op, spec.problem) + "\n" + dims_key(*spec.op, spec.problem);
}

}  // namespace

std::vector<std::size_t> largest_first(const std::vector<OpSpec>& specs) {
  struct Rank {
    std::int64_t flops = 0;
    std::string key;
  };
  std::vector<Rank> ranks;
  for (const OpSpec& spec : specs) {
    const auto flops = Expr::parse(spec.op->flops_text).and_then([&](const Expr& expression) {
      return expression.eval(operator_env(*spec.op, spec.problem));
    });
    ranks.push_back({flops.value_or(0), problem_key(spec)});
  }
  std::vector<std::size_t> order(specs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::make_pair(-ranks[a].flops, std::cref(ranks[a].key)) <
           std::make_pair(-ranks[b].flops, std::cref(ranks[b].key));
  });
  return order;
}

Result<Shard> parse_shard(const std::string& text) {
  Shard shard;
  const char* const end = text.data() + text.size();
  const auto [slash, first] = std::from_chars(text.data(), end, shard.index);
  if (first == std::errc{} && slash != end && *slash == '/') {
    const auto [rest, second] = std::from_chars(slash + 1, end, shard.count);
    if (second == std::errc{} && rest == end && 1 <= shard.index && shard.index <= shard.count) return shard;
  }
  return fail(ErrorKind::kBadInput,
              fmt::format("--shard '{}' is not of the form i/n with 1 <= i <= n, as in 3/16", text));
}

std::vector<OpSpec> take_shard(const std::vector<OpSpec>& specs, const Shard& shard) {
  // Dealt like cards, every other round backwards.
  std::vector<bool> mine(specs.size());
  std::string last;
  std::size_t dealt = 0;
  const auto count = static_cast<std::size_t>(shard.count);
  for (const std::size_t i : largest_first(specs)) {
    const std::string key = problem_key(specs[i]);
    if (key != last) ++dealt;
    last = key;
    const std::size_t round = (dealt - 1) / count, place = (dealt - 1) % count;
    mine[i] = (round % 2 == 0 ? place : count - 1 - place) + 1 == static_cast<std::size_t>(shard.index);
  }
  std::vector<OpSpec> part;
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (mine[i]) part.push_back(specs[i]);
  return part;
}

ProblemQueue::ProblemQueue(const std::vector<OpSpec>& specs, std::size_t devices)
    : free_(specs.size(), true), devices_(devices) {
  for (const OpSpec& spec : specs) keys_.push_back(problem_key(spec));
  order_ = largest_first(specs);
  if (devices == 1) std::iota(order_.begin(), order_.end(), std::size_t{0});
}

// A problem that is at work must end first: its second time must see what the first records.
std::optional<std::size_t> ProblemQueue::first_free(bool past_busy) {
  for (const std::size_t i : order_) {
    if (!free_[i]) continue;
    if (taken_.contains(keys_[i])) {
      if (past_busy) continue;
      break;
    }
    free_[i] = false;
    taken_.insert(keys_[i]);
    return i;
  }
  return std::nullopt;
}

std::optional<std::size_t> ProblemQueue::take_ahead(std::size_t ahead) {
  const std::lock_guard lock(mutex_);
  const auto left = static_cast<std::size_t>(std::count(free_.begin(), free_.end(), true));
  if (left <= (devices_ - 1) * (ahead + 1)) return std::nullopt;
  return first_free(false);
}

void ProblemQueue::done(std::size_t index) {
  const std::lock_guard lock(mutex_);
  taken_.erase(keys_[index]);
  ++done_;
  changed_.notify_all();
}

void ProblemQueue::give_back(const std::vector<std::size_t>& indices) {
  const std::lock_guard lock(mutex_);
  for (const std::size_t i : indices) {
    taken_.erase(keys_[i]);
    free_[i] = true;
  }
  changed_.notify_all();
}

bool ProblemQueue::all_done() const {
  const std::lock_guard lock(mutex_);
  return done_ == keys_.size();
}

}  // namespace kgen
