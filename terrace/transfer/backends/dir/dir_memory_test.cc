// A dir store whose threads have no memory left: what they are asked is answered all the same.
#include <atomic>
#include <cstdlib>
#include <new>

#include "terrace/transfer/backends/dir/dir_rig.h"

namespace {
thread_local bool has_no_memory = false;
}

void* operator new(std::size_t bytes) {
  void* const memory = has_no_memory ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace terrace::transfer::dir {
namespace {

// The thread that makes the first call of a request has memory from there on, or has none.
class CallsWithoutMemory final : public FileCalls {
 public:
  explicit CallsWithoutMemory(const std::atomic<bool>& is_out) : is_out_(is_out) {}
  int open_root(const char* path) override {
    has_no_memory = is_out_;
    return FileCalls::open_root(path);
  }

 private:
  const std::atomic<bool>& is_out_;
};

// So long that no string of it fits where none is asked for.
const std::string kName = "models/a/an-object-of-a-long-name";

class DirMemoryTest : public DirTest {};

TEST_F(DirMemoryTest, AThreadWithoutMemoryAnswersAndServesOnceThereIsSome) {
  std::atomic<bool> is_out = false;
  options_.threads = 1;
  auto made = make_store(options_, std::make_unique<CallsWithoutMemory>(is_out));
  ASSERT_TRUE(made.has_value());
  store_ = *std::move(made);
  ASSERT_TRUE(put(kName, content(10)).status.is_ok());
  is_out = true;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(head(kName).status.code(), Code::kInternal) << i;
  // As many as may be under way, before any is taken.
  for (unsigned i = 0; i < options_.depth; ++i) {
    ASSERT_TRUE(store_->submit(request(ObjectOp::kHead, kName)).is_ok());
  }
  std::vector<ObjectAnswer> answers;
  EXPECT_TRUE(testing::eventually([&] {
    store_->wait(milliseconds(50));
    store_->poll(answers);
    return answers.size() == options_.depth;
  }));
  is_out = false;
  EXPECT_EQ(get_all(kName), content(10));
  store_.reset();  // Before `is_out` goes.
}

}  // namespace
}  // namespace terrace::transfer::dir
