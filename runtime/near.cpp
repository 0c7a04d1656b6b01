#include "runtime/near.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace kgen {
namespace {

// Four floats at once, on every machine: a loop of four is not always made one instruction.
using Lanes = float __attribute__((vector_size(16)));
Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}
void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }
Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

bool none_within(const float* distances, float limit) {
  const auto within = load(distances) <= limit;
  std::uint64_t bits[2];
  static_assert(sizeof bits == sizeof within);
  std::memcpy(bits, &within, sizeof bits);
  return (bits[0] | bits[1]) == 0;
}

float log_of(double size) { return std::log2(static_cast<float>(size) + 1); }

}  // namespace

Workload::Workload(const Plan& plan) {
  for (const std::string& dim : plan.dims) {
    set_.input(dim);
    flops_set_.input(dim);
  }
  std::vector<std::string> of_grid;
  for (const Step& step : plan.steps) {
    if (step.prepare) continue;
    StepTerms& terms = steps_.emplace_back();
    terms.when = set_.add(step.when.specialised(plan.constants));
    for (std::size_t i = 0; i < step.grid.size(); ++i) {
      const Expr axis = step.grid[i].specialised(plan.constants);
      terms.grid[i] = set_.add(axis);
      of_grid.insert(of_grid.end(), axis.names().begin(), axis.names().end());
    }
    terms.block = std::max<std::int64_t>(0, step.block.eval(plan.constants).value_or(0));  // reads no dims
  }
  const Expr flops = plan.flops.specialised(plan.constants);
  flops_ = flops_set_.add(flops);
  for (std::size_t i = 0; i < plan.dims.size(); ++i) {
    if (std::ranges::find(flops.names(), plan.dims[i]) != flops.names().end() &&
        std::ranges::find(of_grid, plan.dims[i]) == of_grid.end())
      depth_.push_back(i);
  }
}

double Workload::waves(std::span<const double> dims, std::span<const double> at_once,
                       std::vector<double>& scratch) const {
  set_.run(dims, scratch);
  double sum = 0;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const double when = scratch[steps_[i].when];
    if (when == 0) continue;
    bool known = when > 0;
    double blocks = 1;
    for (const ExprSet::Node axis : steps_[i].grid) {
      const double along = scratch[axis];
      known &= ExprSet::known(along) && along >= 0;
      blocks *= along;
    }
    if (!known) return 0;
    sum += std::ceil(blocks / at_once[i]);
  }
  return sum;
}

double Workload::flops(std::span<const double> dims, std::vector<double>& scratch) const {
  flops_set_.run(dims, scratch);
  return ExprSet::known(scratch[flops_]) ? scratch[flops_] : -1;
}

std::optional<double> Workload::flops(std::span<const double> dims, std::span<const double> tuned,
                                      std::vector<double>& scratch) const {
  if (std::ranges::all_of(depth_, [&](std::size_t dim) { return dims[dim] == tuned[dim]; })) return std::nullopt;
  double mixed[32];
  if (dims.size() > std::size(mixed)) return -1;
  std::ranges::copy(tuned, mixed);
  for (const std::size_t dim : depth_) mixed[dim] = dims[dim];
  return flops({mixed, dims.size()}, scratch);
}

TimeModel::TimeModel(const Workload& workload, std::span<const double> dims, double us, const Occupancy& occupancy)
    : steps_(workload.steps()), us_(us) {
  for (std::size_t i = 0; i < steps_; ++i) {
    const int wave_size = std::max(1, occupancy.wave_size);
    const double of_block = std::max(1.0, std::ceil(static_cast<double>(workload.block(i)) / wave_size));
    numbers_.push_back(std::max(1, occupancy.units) * std::max(1.0, std::floor(occupancy.waves / of_block)));
  }
  numbers_.insert(numbers_.end(), dims.begin(), dims.end());
  std::vector<double> scratch;
  waves_ = workload.waves(dims, at_once(), scratch);
  flops_ = workload.flops(dims, scratch);
}

double TimeModel::us(const Workload& workload, std::span<const double> dims, std::vector<double>& scratch) const {
  const double waves = workload.waves(dims, at_once(), scratch);
  double depth = 1;
  if (flops_ > 0) {
    if (const auto flops = workload.flops(dims, this->dims(), scratch); flops && *flops > 0) depth = *flops / flops_;
  }
  return us_ * (waves > 0 && waves_ > 0 ? waves / waves_ : 1) * depth;
}

void NearShapes::add(std::size_t row, std::span<const double> dims, const std::vector<bool>& given) {
  axes_.resize(dims.size());
  for (std::size_t dim = 0; dim < dims.size(); ++dim) {
    Axis& axis = axes_[dim];
    axis.logs.resize(rows_.size());  // without what filled the last block
    axis.logs.push_back(log_of(dims[dim]));
    axis.given.push_back(given[dim]);
    axis.any_given |= given[dim];
  }
  order_.push_back(static_cast<std::uint32_t>(rows_.size()));
  rows_.push_back(row);
  arranged_ = false;
}

// Halves along the dim in which they differ most, down to blocks.
void NearShapes::split(std::span<std::uint32_t> rows) const {
  if (rows.size() <= kBlock) return;
  const Axis* widest = nullptr;
  float width = -1;
  for (const Axis& axis : axes_) {
    if (!axis.any_given) continue;
    const auto [least, most] = std::ranges::minmax(rows, {}, [&](std::uint32_t row) { return axis.logs[row]; });
    if (const float here = axis.logs[most] - axis.logs[least]; here > width) width = here, widest = &axis;
  }
  const std::size_t half = (rows.size() / 2 + kBlock - 1) / kBlock * kBlock;
  if (width > 0)
    std::ranges::nth_element(rows, rows.begin() + static_cast<std::ptrdiff_t>(half), {},
                             [&](std::uint32_t row) { return widest->logs[row]; });
  split(rows.first(half));
  split(rows.subspan(half));
}

void NearShapes::arrange() {
  std::vector<std::uint32_t> places(order_.size());
  std::iota(places.begin(), places.end(), 0U);
  split(places);
  const std::size_t blocks = block_count();
  const std::size_t padded = (blocks + kLanes - 1) / kLanes * kLanes;  // with blocks that are nowhere near
  for (Axis& axis : axes_) {
    const auto logs = std::move(axis.logs);
    const auto given = std::move(axis.given);
    axis.logs.assign(blocks * kBlock, HUGE_VALF);
    axis.given.clear();
    axis.least.assign(padded, HUGE_VALF);
    axis.most.assign(padded, 0);
    axis.differ.assign(blocks, 0);
    for (std::size_t i = 0; i < places.size(); ++i) {
      const std::size_t block = i / kBlock;
      const float log = axis.logs[i] = logs[places[i]];
      axis.least[block] = std::min(axis.least[block], log);
      axis.most[block] = std::max(axis.most[block], log);
      axis.given.push_back(given[places[i]]);
      if (axis.given.back()) axis.differ[block] |= static_cast<std::uint16_t>(1U << i % kBlock);
    }
  }
  for (std::uint32_t& place : places) place = order_[place];
  order_ = std::move(places);
  arranged_ = true;
}

void NearShapes::measure(std::size_t block, float (&distance)[kBlock]) const {
  std::fill(std::begin(distance), std::end(distance), 0.0F);
  for (const Asked& asked : asked_) {
    const float* logs = asked.axis->logs.data() + block * kBlock;
    const float here = asked.log;
    if (asked.given) {
      for (std::size_t i = 0; i < kBlock; i += kLanes) {
        const Lanes away = here - load(logs + i);
        store(distance + i, load(distance + i) + larger(away, -away));
      }
    } else {
      for (unsigned bits = asked.axis->differ[block]; bits != 0; bits &= bits - 1) {
        const auto i = static_cast<std::size_t>(__builtin_ctz(bits));
        distance[i] += std::fabs(here - logs[i]);
      }
    }
  }
}

std::span<const NearShapes::Near> NearShapes::nearest(std::span<const double> dims, const std::vector<bool>& given,
                                                      std::size_t most) {
  if (!arranged_) arrange();
  found_.clear();
  asked_.clear();
  const std::size_t blocks = block_count(), padded = (blocks + kLanes - 1) / kLanes * kLanes;
  bounds_.assign(padded, 0.0F);
  for (std::size_t dim = 0; dim < axes_.size(); ++dim) {
    const Axis& axis = axes_[dim];
    if (!given[dim] && !axis.any_given) continue;
    const float here = log_of(dims[dim]);
    asked_.push_back({&axis, here, given[dim]});
    if (!given[dim]) continue;
    // What every row of a block is away at least: added up as distances are, so that no rounding makes it more.
    for (std::size_t i = 0; i < padded; i += kLanes) {
      const Lanes outside = larger(load(&axis.least[i]) - here, here - load(&axis.most[i]));
      store(&bounds_[i], load(&bounds_[i]) + larger(outside, Lanes{}));
    }
  }
  // A distance with the place of its row below it: in the order of these numbers the nearest comes first, and of those
  // at one distance the first. (No distance is negative.)
  const auto key = [&](float distance, std::size_t at) {
    return std::uint64_t{std::bit_cast<std::uint32_t>(distance)} << 32 | order_[at];
  };
  float limit = HUGE_VALF;  // once there are enough
  const auto visit = [&](std::size_t block) {
    float distance[kBlock];
    measure(block, distance);
    const std::size_t first = block * kBlock, count = std::min(kBlock, rows_.size() - first);
    for (std::size_t i = 0; i < count; ++i) {
      if (i % kLanes == 0 && none_within(distance + i, limit)) {
        i += kLanes - 1;
        continue;
      }
      if (distance[i] > limit) continue;
      const std::uint64_t near = key(distance[i], first + i);
      if (keys_.size() == most) {
        if (near > keys_.back()) continue;
        keys_.pop_back();
      }
      keys_.push_back(near);
      std::size_t at = keys_.size() - 1;
      for (; at > 0 && near < keys_[at - 1]; --at) keys_[at] = keys_[at - 1];
      keys_[at] = near;
      if (keys_.size() == most) limit = std::bit_cast<float>(static_cast<std::uint32_t>(keys_.back() >> 32));
    }
  };
  keys_.clear();
  if (most >= rows_.size()) {
    for (std::size_t block = 0; block < blocks; ++block) {
      float distance[kBlock];
      measure(block, distance);
      for (std::size_t i = block * kBlock; i < std::min(rows_.size(), (block + 1) * kBlock); ++i)
        keys_.push_back(key(distance[i % kBlock], i));
    }
    std::ranges::sort(keys_);
  } else if (most > 0) {
    // The most promising block first: it leaves few of the others to look at.
    const auto first = static_cast<std::size_t>(std::min_element(bounds_.begin(), bounds_.end()) - bounds_.begin());
    visit(first);
    for (std::size_t block = 0; block < blocks; ++block) {
      if (bounds_[block] <= limit && block != first) visit(block);
    }
  }
  for (const std::uint64_t near : keys_) {
    found_.push_back(
        {std::bit_cast<float>(static_cast<std::uint32_t>(near >> 32)), rows_[static_cast<std::uint32_t>(near)]});
  }
  return found_;
}

}  // namespace kgen
