#include "runtime/near.h"

#include <algorithm>
#include <cmath>

namespace kgen {
namespace {

float log_of(std::int64_t size) { return std::log2(static_cast<float>(size) + 1); }

}  // namespace

Workload::Workload(const Plan& plan) : in_grid_(plan.dims.size(), false) {
  flops_ = term(plan, plan.flops);
  for (const Step& step : plan.steps) {
    if (step.prepare) continue;
    StepTerms terms{.when = term(plan, step.when),
                    .grid = {term(plan, step.grid[0]), term(plan, step.grid[1]), term(plan, step.grid[2])}};
    terms.block = static_cast<std::int64_t>(std::max(0.0, term(plan, step.block).fixed));  // reads no dims
    for (const Term& axis : terms.grid)
      for (const int slot : axis.slots) in_grid_[static_cast<std::size_t>(slot)] = true;
    steps_.push_back(std::move(terms));
  }
}

Workload::Term Workload::term(const Plan& plan, const Expr& expr) {
  Term made{.expr = expr.specialised(plan.constants), .slots = {}};
  for (const std::string& name : made.expr.names()) {
    const auto dim = std::ranges::find(plan.dims, name);
    if (dim != plan.dims.end())
      made.slots.push_back(static_cast<int>(dim - plan.dims.begin()));
    else
      made.known = false;
  }
  if (made.slots.empty()) made.fixed = eval(made, {});
  return made;
}

double Workload::eval(const Term& term, std::span<const std::int64_t> dims) const {
  if (term.fixed >= 0) return term.fixed;
  std::int64_t values[16];
  if (!term.known || term.slots.size() > std::size(values)) return -1;
  for (std::size_t i = 0; i < term.slots.size(); ++i) values[i] = dims[static_cast<std::size_t>(term.slots[i])];
  const auto value = term.expr.eval_slots(values);
  return value ? static_cast<double>(*value) : -1;
}

double Workload::waves(std::span<const std::int64_t> dims, std::span<const double> at_once) const {
  double sum = 0;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const double when = eval(steps_[i].when, dims);
    if (when == 0) continue;
    double blocks = when < 0 ? -1 : 1;
    for (const Term& axis : steps_[i].grid) {
      const double along = eval(axis, dims);
      blocks = along < 0 || blocks < 0 ? -1 : blocks * along;
    }
    if (blocks < 0) return 0;
    sum += std::ceil(blocks / at_once[i]);
  }
  return sum;
}

double Workload::depth(std::span<const std::int64_t> dims, std::span<const std::int64_t> tuned) const {
  std::int64_t mixed[32];
  if (dims.size() > std::size(mixed) || tuned.size() != dims.size()) return 1;
  bool differs = false;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    mixed[i] = in_grid_[i] ? tuned[i] : dims[i];
    differs |= mixed[i] != tuned[i];
  }
  if (!differs) return 1;
  const double before = eval(flops_, tuned), now = eval(flops_, {mixed, dims.size()});
  return before > 0 && now > 0 ? now / before : 1;
}

TimeModel::TimeModel(const Workload& workload, std::vector<std::int64_t> dims, double us, const Occupancy& occupancy)
    : dims_(std::move(dims)), us_(us) {
  for (std::size_t i = 0; i < workload.steps(); ++i) {
    const int wave_size = std::max(1, occupancy.wave_size);
    const double of_block = std::max(1.0, std::ceil(static_cast<double>(workload.block(i)) / wave_size));
    at_once_.push_back(std::max(1, occupancy.units) * std::max(1.0, std::floor(occupancy.waves / of_block)));
  }
  waves_ = workload.waves(dims_, at_once_);
}

double TimeModel::us(const Workload& workload, std::span<const std::int64_t> dims) const {
  const double waves = workload.waves(dims, at_once_);
  return us_ * (waves > 0 && waves_ > 0 ? waves / waves_ : 1) * workload.depth(dims, dims_);
}

void NearShapes::add(std::size_t row, std::span<const std::int64_t> dims, const std::vector<bool>& given) {
  logs_.resize(dims.size());
  given_.resize(dims.size());
  for (std::size_t dim = 0; dim < dims.size(); ++dim) {
    logs_[dim].push_back(log_of(dims[dim]));
    if (given[dim]) given_[dim].push_back(rows_.size());
  }
  rows_.push_back(row);
}

std::vector<NearShapes::Near> NearShapes::nearest(std::span<const std::int64_t> dims, const std::vector<bool>& given,
                                                  std::size_t most) const {
  std::vector<float> distance(rows_.size(), 0.0F);
  for (std::size_t dim = 0; dim < logs_.size(); ++dim) {
    const float here = log_of(dims[dim]);
    const float* logs = logs_[dim].data();
    if (given[dim]) {
      for (std::size_t i = 0; i < distance.size(); ++i) distance[i] += std::fabs(here - logs[i]);
    } else {
      for (const std::size_t i : given_[dim]) distance[i] += std::fabs(here - logs[i]);
    }
  }
  std::vector<Near> found;
  if (most >= rows_.size()) {
    for (std::size_t i = 0; i < rows_.size(); ++i) found.push_back({distance[i], rows_[i]});
    std::ranges::stable_sort(found, {}, &Near::distance);
    return found;
  }
  found.reserve(most + 1);
  float limit = HUGE_VALF;
  for (std::size_t i = 0; i < distance.size(); ++i) {
    if (distance[i] >= limit) continue;
    const Near near{distance[i], rows_[i]};
    found.insert(std::ranges::upper_bound(found, near.distance, {}, &Near::distance), near);
    if (found.size() > most) found.pop_back();
    if (found.size() == most) limit = static_cast<float>(found.back().distance);
  }
  return found;
}

}  // namespace kgen
