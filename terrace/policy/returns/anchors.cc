#include "terrace/policy/returns/anchors_internal.h"

namespace terrace::policy {

Result<Anchors> Anchors::create() {
  TERRACE_ASSIGN_OR_RETURN(auto cells, index::ZeroedArray<Cell>::create(kSets * kWays));
  return Anchors(std::move(cells));
}

void Anchors::set(const SequenceHash& hash, std::uint32_t number) {
  const std::size_t first = set_of(hash);
  const std::uint32_t mark = mark_of(hash);
  std::size_t place = first;
  std::uint32_t oldest = 0;
  for (std::size_t way = first; way < first + kWays; ++way) {
    const Cell& cell = cells_[way];
    if (cell.mark == mark || cell.mark == 0) {
      place = way;
      break;
    }
    const std::uint32_t age = number - cell.number;
    if (age >= oldest) {
      oldest = age;
      place = way;
    }
  }
  cells_[place] = {mark, number};
}

std::optional<std::uint32_t> Anchors::find(const SequenceHash& hash) const {
  const std::size_t first = set_of(hash);
  const std::uint32_t mark = mark_of(hash);
  for (std::size_t way = first; way < first + kWays; ++way) {
    if (cells_[way].mark == mark) return cells_[way].number;
  }
  return std::nullopt;
}

}  // namespace terrace::policy
