#include "tuner/search/search_base.h"

#include <algorithm>

namespace kgen {

std::size_t PointIndex::Hash::operator()(const std::vector<int>& point) const {
  std::size_t hash = 1469598103934665603ull;
  for (int value : point) hash = (hash ^ static_cast<std::size_t>(value)) * 1099511628211ull;
  return hash;
}

PointIndex::PointIndex(const SearchSpace& space) : space_(space) {
  index_.reserve(space.points.size());
  for (std::size_t i = 0; i < space.points.size(); ++i) index_.emplace(space.points[i], i);
}

std::optional<std::size_t> PointIndex::find(const std::vector<int>& point) const {
  const auto at = index_.find(point);
  if (at == index_.end()) return std::nullopt;
  return at->second;
}

std::vector<std::size_t> PointIndex::neighbours(std::size_t index) const {
  std::vector<std::size_t> found;
  std::vector<int> point = space_.points[index];
  for (std::size_t a = 0; a < point.size(); ++a) {
    const int own = point[a];
    if (own == kAbsent) continue;
    for (point[a] = 0; point[a] < static_cast<int>(space_.axes[a].values.size()); ++point[a])
      if (point[a] != own)
        if (const auto at = find(point)) found.push_back(*at);
    point[a] = own;
  }
  return found;
}

std::vector<std::size_t> PointIndex::steps(std::size_t index) const {
  std::vector<std::size_t> found;
  std::vector<int> point = space_.points[index];
  for (std::size_t a = 0; a < point.size(); ++a) {
    const int own = point[a], count = static_cast<int>(space_.axes[a].values.size());
    if (own == kAbsent) continue;
    for (const int direction : {-1, 1}) {
      for (point[a] = own + direction; point[a] >= 0 && point[a] < count; point[a] += direction) {
        const auto at = find(point);
        if (!at) continue;
        found.push_back(*at);
        if (!space_.axes[a].numbers.empty()) break;
      }
    }
    point[a] = own;
  }
  return found;
}

std::optional<std::size_t> SearchBase::propose() {
  std::optional<std::size_t> index;
  while (!index && next_seed_ < seeds_) {
    const std::size_t seed = space_.seeds[next_seed_++];
    if (!seen_[seed]) index = seed;
  }
  if (!index && seen_count_ < seen_.size()) index = next();
  if (!index) index = unseen_random();
  if (!index) return std::nullopt;
  seen_[*index] = true;
  ++seen_count_;
  taken(*index);
  return index;
}

void SearchBase::report(std::size_t index, double time_us) {
  if (!seen_[index]) ++seen_count_;
  seen_[index] = true;
  told(index, time_us);
}

std::optional<std::size_t> SearchBase::unseen_random() {
  const std::size_t n = seen_.size();
  if (seen_count_ >= n) return std::nullopt;
  std::size_t index = random_.below(n);
  while (seen_[index]) index = (index + 1) % n;
  return index;
}

std::optional<std::size_t> SearchBase::unseen_of(std::vector<std::size_t> points) {
  std::erase_if(points, [this](std::size_t point) { return seen_[point]; });
  if (points.empty()) return std::nullopt;
  return points[random_.below(points.size())];
}

}  // namespace kgen
