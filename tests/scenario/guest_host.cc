// A foreign process in which libterrace.so is a guest, loaded at run time as Python does it.
//   guest_host LIBRARY hash [FOREIGN]      sequence hash of 64 tokens, FOREIGN loaded before us
//   guest_host LIBRARY exit DIRECTORY      ends without closing what it opened
//   guest_host LIBRARY hurry DIRECTORY     the same while another thread is in our calls
#include <dlfcn.h>
#include <terrace/terrace.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "scenario/guest_options.h"

// It ends without closing: all that it opened would be told as lost.
extern "C" [[gnu::visibility("default")]] int
__lsan_is_turned_off() {  // NOLINT(bugprone-reserved-identifier,readability-identifier-naming)
  return 1;
}

namespace {

void* load(const char* path, int flags) {
  void* const library = ::dlopen(path, flags);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", ::dlerror());
    std::exit(3);
  }
  return library;
}

template <typename Function>
Function find(void* library, const char* name) {
  return reinterpret_cast<Function>(::dlsym(library, name));
}

int hash(void* library) {
  std::array<std::uint32_t, 64> tokens{};
  for (std::uint32_t i = 0; i < tokens.size(); ++i) tokens[i] = i * 7;
  std::array<std::uint8_t, 64> hashes{};
  const auto run = find<decltype(&terrace_hash_sequence)>(library, "terrace_hash_sequence");
  if (run(16, tokens.data(), tokens.size(), nullptr, 0, hashes.data()) != TERRACE_OK) return 4;
  for (const std::uint8_t byte : hashes) std::printf("%02x", byte);
  return 0;
}

int leave(void* library, const std::string& directory, bool is_busy) {
  const guest::Guest guest(directory);
  const terrace_owner_options options = guest.options();
  terrace_owner* owner = nullptr;
  const auto open = find<decltype(&terrace_open_owner)>(library, "terrace_open_owner");
  if (open(&options, &owner) != TERRACE_OK) return 4;
  if (is_busy) {
    const auto read = find<decltype(&terrace_read_status)>(library, "terrace_read_status");
    std::thread([owner, read] {
      terrace_bytes status{};
      for (;;) (void)read(owner, &status);
    }).detach();
  }
  std::puts("leaving");
  std::fflush(stdout);
  return 0;  // Its exit hooks run, and those of every library of the process.
}

}  // namespace

int main(int count, char** words) {
  if (count < 3) return 2;
  const std::string_view mode = words[2];
  if (mode == "hash" && count > 3) (void)load(words[3], RTLD_NOW | RTLD_GLOBAL);
  void* const library = load(words[1], RTLD_NOW | RTLD_LOCAL);
  if (mode == "hash") return hash(library);
  return count > 3 ? leave(library, words[3], mode == "hurry") : 2;
}
