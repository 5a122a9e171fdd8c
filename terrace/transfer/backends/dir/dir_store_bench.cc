// Puts and gets of whole objects by the dir store beside what the same number of plain threads
// reach with plain files of the same sizes in the same directory: write and fsync, open and pread.
// Both sides overwrite or read the same set of names in turn; gets come from the medium, as both
// sides' pages are dropped from the cache before (`--cached`: from the cache).
//   dir_store_bench [--directory=DIR] [--runs=N] [--objects=N] [--mebibytes=N] [--depth=N]
//                   [--direct] [--cached] [--lasting] [object.dir.put|object.dir.get]
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/dir/dir_store.h"
#include "terrace/transfer/backends/dir/names_internal.h"

namespace terrace::transfer {
namespace {

struct Setup {
  std::string directory = ".";
  int runs = 7;
  std::uint64_t objects = 48;
  std::uint64_t object_bytes = 8ULL << 20U;
  unsigned depth = 8;
  bool is_direct = false;
  bool is_cached = false;
  bool is_lasting = false;  // Packs are not.
  std::string name;         // Empty = both.
};

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

class Flow {
 public:
  explicit Flow(const Setup& setup)
      : setup_(setup),
        scratch_(setup.directory),
        memory_(
            static_cast<std::byte*>(std::aligned_alloc(4096, setup.depth * setup.object_bytes))) {
    std::filesystem::create_directory(scratch_.path() + "/plain");
    std::filesystem::create_directory(scratch_.path() + "/store");
    Rng rng(1);
    for (std::size_t at = 0; at < setup.depth * setup.object_bytes; at += 8) {
      const std::uint64_t word = rng.next();
      std::memcpy(memory_.get() + at, &word, sizeof word);
    }
    DirStoreOptions options;
    options.path = scratch_.path() + "/store";
    options.depth = setup.depth;
    options.threads = setup.depth;
    options.is_direct = setup.is_direct;
    auto made = make_dir_store(options);
    if (!made) {
      std::fprintf(stderr, "dir_store_bench: %s\n", made.error().message().c_str());
      std::exit(1);
    }
    store_ = *std::move(made);
  }

  // Bytes per second, over all objects.
  double put_all() {
    remove_all();
    return rate([&] { run_all(ObjectOp::kPut); });
  }
  double get_all() {
    forget(true);
    return rate([&] { run_all(ObjectOp::kGet); });
  }
  double write_plain() {
    for (std::uint64_t i = 0; i < setup_.objects; ++i) {
      (void)std::filesystem::remove(plain_path(i));
    }
    return rate([&] {
      on_threads([&](std::uint64_t number, std::byte* memory) {
        const auto file = open_file(plain_path(number), O_WRONLY | O_CREAT | direct());
        TERRACE_CHECK(file.has_value());
        TERRACE_CHECK(whole(::pwrite(file->get(), memory, setup_.object_bytes, 0)));
        TERRACE_CHECK(::fsync(file->get()) == 0);
      });
    });
  }
  double read_plain() {
    forget(false);
    return rate([&] {
      on_threads([&](std::uint64_t number, std::byte* memory) {
        const auto file = open_file(plain_path(number), O_RDONLY | direct());
        TERRACE_CHECK(file.has_value());
        TERRACE_CHECK(whole(::pread(file->get(), memory, setup_.object_bytes, 0)));
      });
    });
  }

 private:
  [[nodiscard]] int direct() const { return setup_.is_direct ? O_DIRECT : 0; }
  [[nodiscard]] bool whole(ssize_t moved) const {
    return moved == static_cast<ssize_t>(setup_.object_bytes);
  }
  [[nodiscard]] std::string plain_path(std::uint64_t number) const {
    return fmt::format("{}/plain/{}", scratch_.path(), number);
  }
  [[nodiscard]] static std::string name_of(std::uint64_t number) {
    return fmt::format("bench/{:08x}.pack", number);
  }
  double rate(const std::function<void()>& body) {
    const double time = testing::seconds_of(clock_, body);
    return static_cast<double>(setup_.objects * setup_.object_bytes) / time;
  }
  void on_threads(const std::function<void(std::uint64_t, std::byte*)>& body) {
    std::atomic<std::uint64_t> next = 0;
    std::vector<std::jthread> threads;
    threads.reserve(setup_.depth);
    for (unsigned i = 0; i < setup_.depth; ++i) {
      threads.emplace_back([&, i] {
        for (std::uint64_t number = next++; number < setup_.objects; number = next++) {
          body(number, memory_.get() + i * setup_.object_bytes);
        }
      });
    }
  }
  void run_all(ObjectOp op) {
    std::vector<std::uint64_t> free;
    free.reserve(setup_.depth);
    for (unsigned i = 0; i < setup_.depth; ++i) free.push_back(i);
    std::vector<ObjectAnswer> answers;
    std::uint64_t begun = 0;
    std::uint64_t done = 0;
    while (done < setup_.objects) {
      while (begun < setup_.objects && !free.empty()) {
        ObjectRequest request;
        request.token = free.back();
        request.op = op;
        request.name = name_of(begun);
        request.is_lasting = setup_.is_lasting;
        if (op == ObjectOp::kPut || op == ObjectOp::kGet) {
          request.pieces = {{memory_.get() + free.back() * setup_.object_bytes,
                             static_cast<std::size_t>(setup_.object_bytes)}};
        }
        TERRACE_CHECK(store_->submit(std::move(request)).is_ok());
        free.pop_back();
        ++begun;
      }
      store_->wait(seconds(1));
      answers.clear();
      store_->poll(answers);
      for (const ObjectAnswer& answer : answers) {
        TERRACE_CHECK(answer.status.is_ok() && !answer.was_there);
        free.push_back(answer.token);
        ++done;
      }
    }
  }
  void remove_all() { run_all(ObjectOp::kRemove); }
  void forget(bool is_store) {
    if (setup_.is_cached) return;
    for (std::uint64_t i = 0; i < setup_.objects; ++i) {
      const std::string path =
          is_store ? fmt::format("{}/store/{}", scratch_.path(), dir::place_of(name_of(i)).path())
                   : plain_path(i);
      const auto file = open_file(path, O_RDONLY);
      TERRACE_CHECK(file.has_value());
      TERRACE_CHECK(::posix_fadvise(file->get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
    }
  }

  const Setup& setup_;
  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  std::unique_ptr<std::byte, Free> memory_;
  std::unique_ptr<ObjectStore> store_;
};

void report(const Setup& setup, const std::string& name, const std::string& limit,
            const std::vector<std::vector<double>>& samples) {
  if (!setup.name.empty() && setup.name != name) return;
  testing::BenchResult result;
  result.name = name;
  result.samples = samples[0];
  result.limit_name = limit;
  result.limit_samples = samples[1];
  result.param("object_bytes", static_cast<std::int64_t>(setup.object_bytes))
      .param("depth", std::int64_t{setup.depth})
      .param("objects", static_cast<std::int64_t>(setup.objects))
      .param("io", setup.is_direct ? "direct" : "buffered")
      .param("from", setup.is_cached ? "cache" : "medium")
      .param("lasting", std::int64_t{setup.is_lasting});
  testing::print(result, testing::machine_facts(setup.directory));
}

void bench(const Setup& setup) {
  Flow flow(setup);
  report(setup, "object.dir.put", "write+fsync",
         testing::alternate(setup.runs,
                            {[&] { return flow.put_all(); }, [&] { return flow.write_plain(); }}));
  report(setup, "object.dir.get", "pread",
         testing::alternate(setup.runs,
                            {[&] { return flow.get_all(); }, [&] { return flow.read_plain(); }}));
}

}  // namespace
}  // namespace terrace::transfer

int main(int argc, char** argv) {
  terrace::transfer::Setup setup;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto number = [&](const std::string& name) {
      return std::strtoull(argument.c_str() + name.size(), nullptr, 10);
    };
    if (argument.starts_with("--directory=")) {
      setup.directory = std::filesystem::absolute(argument.substr(12));
    } else if (argument.starts_with("--runs=")) {
      setup.runs = static_cast<int>(number("--runs="));
    } else if (argument.starts_with("--objects=")) {
      setup.objects = number("--objects=");
    } else if (argument.starts_with("--mebibytes=")) {
      setup.object_bytes = number("--mebibytes=") << 20U;
    } else if (argument.starts_with("--depth=")) {
      setup.depth = static_cast<unsigned>(number("--depth="));
    } else if (argument == "--direct") {
      setup.is_direct = true;
    } else if (argument == "--lasting") {
      setup.is_lasting = true;
    } else if (argument == "--cached") {
      setup.is_cached = true;
    } else {
      setup.name = argument;
    }
  }
  setup.directory = std::filesystem::absolute(setup.directory);
  terrace::transfer::bench(setup);
}
