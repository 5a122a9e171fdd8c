// Keys with numbers, and hands that work when they are told to: for tests of encryption.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/hands.h"
#include "terrace/block/key_ring.h"

namespace terrace::testing {

// "12": key 1 writes, key 2 only reads; "" = null, no key.
[[nodiscard]] inline std::shared_ptr<const KeyRing> ring_of(const std::string& digits) {
  if (digits.empty()) return nullptr;
  auto ring = std::make_shared<KeyRing>();
  for (const char digit : digits) ring->add(*parse_master_key(std::string(64, digit)));
  return ring;
}
[[nodiscard]] inline KeyId key_id(char digit) {
  return key_id_of(*parse_master_key(std::string(64, digit)));
}
[[nodiscard]] inline std::string id_of(char digit) { return key_id(digit).hex(); }

class SlowHands final : public Hands {
 public:
  void post(Job job, bool) override { jobs_.push_back(std::move(job)); }
  void do_all() {
    for (Job& job : std::exchange(jobs_, {})) job();
  }
  [[nodiscard]] std::size_t waiting() const { return jobs_.size(); }

 private:
  std::vector<Job> jobs_;
};

}  // namespace terrace::testing
