#include "terrace/transfer/object_listing.h"

#include <fmt/format.h>

namespace terrace::transfer {

Status ObjectListing::take(const ObjectAnswer& page) {
  after_ = page.next;
  ++pages_;
  empty_pages_ = page.found.empty() ? empty_pages_ + 1 : 0;
  if (after_.empty()) return {};
  if (after_ == mark_) {
    return {Code::kCorrupt,
            fmt::format("list {}: after page {} comes one that was there {} pages before: the "
                        "server's listings go round in a circle",
                        start_, pages_, steps_ + 1),
            Scope::kBackend};
  }
  if (empty_pages_ >= kMostEmptyPages) {
    return {Code::kCorrupt,
            fmt::format("list {}: {} pages in a row without a name of ours, and the server says "
                        "that there are more",
                        start_, empty_pages_),
            Scope::kBackend};
  }
  if (++steps_ == most_steps_) {
    mark_ = after_;
    steps_ = 0;
    most_steps_ *= 2;
  }
  return {};
}

}  // namespace terrace::transfer
