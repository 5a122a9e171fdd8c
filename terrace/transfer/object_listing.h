// One listing of an object store, page by page: a store's word for its next page may be anything,
// and a faulty one would have us go round in a circle, or on and on without a name.
// Threading: thread-compatible.  Waits: never.  Memory: two such words.
// Source: Brent, An improved Monte Carlo factorization algorithm, 1980 (a circle is found by
// keeping one place, and another one after twice as many steps).
#pragma once

#include <cstdint>
#include <string>

#include "terrace/transfer/object_store.h"

namespace terrace::transfer {

class ObjectListing {
 public:
  // In a row. A store may have pages of nothing but what was removed, or of others' names: of ten
  // million of these it would still come to an end.
  static constexpr std::uint64_t kMostEmptyPages = 10'000;

  // `start`: what the names begin with, for messages.
  explicit ObjectListing(std::string start) : start_(std::move(start)) {}
  // `page`: the answer, ok, to a request with after(). Errors: kCorrupt = this listing does not
  // end; nobody can say what is there until the server is put right.
  [[nodiscard]] Status take(const ObjectAnswer& page);
  // ObjectRequest::after of the next page; empty = of the first one, or take() had the last.
  [[nodiscard]] const std::string& after() const { return after_; }

 private:
  std::string start_;
  std::string after_;
  std::string mark_;  // What was the next page `steps_` pages ago.
  std::uint64_t steps_ = 0;
  std::uint64_t most_steps_ = 1;
  std::uint64_t pages_ = 0;
  std::uint64_t empty_pages_ = 0;  // In a row.
};

}  // namespace terrace::transfer
