#include "terrace/trace/workload.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace terrace::trace {

void Workload::chain(const Request& request, std::vector<std::uint32_t>& blocks) const {
  blocks.resize(request.depth);
  std::uint32_t tip = request.tip;
  for (std::size_t i = request.depth; i-- > 0;) {
    blocks[i] = tip - 1;
    tip = parents_[tip - 1];
  }
}

bool Workload::set_block_tokens(std::uint32_t tokens) {
  if (block_tokens_ == 0) block_tokens_ = tokens;
  return block_tokens_ == tokens;
}

std::uint32_t Workload::add_block(std::uint32_t tip) {
  parents_.push_back(tip);
  return static_cast<std::uint32_t>(parents_.size());
}

void Workload::add_request(const Request& request) {
  requests_.push_back(request);
  references_ += request.depth;
}

void Workload::sort() {
  std::vector<std::size_t> order(requests_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(requests_[i].at, i); });
  std::vector<Request> sorted;
  sorted.reserve(order.size());
  for (const std::size_t i : order) sorted.push_back(requests_[i]);
  requests_ = std::move(sorted);
}

std::uint32_t Scope::tip(std::span<const std::uint64_t> ids) {
  const auto differs = std::ranges::mismatch(ids, last_ids_);
  const auto same = static_cast<std::size_t>(differs.in1 - ids.begin());
  last_ids_.resize(same);
  last_tips_.resize(same);
  std::uint32_t tip = same == 0 ? 0 : last_tips_.back();
  for (const std::uint64_t id : ids.subspan(same)) {
    std::uint32_t& child = children_[{tip, id}];
    if (child == 0) child = workload_.add_block(tip);
    tip = child;
    last_ids_.push_back(id);
    last_tips_.push_back(tip);
  }
  return tip;
}

}  // namespace terrace::trace
