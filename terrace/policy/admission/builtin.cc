// The filters that settings can name, and the one that is none.
#include "terrace/policy/admission/admission.h"

namespace terrace::policy {

namespace {

class AdmitAll final : public AdmissionFilter {
 public:
  bool admit(const BlockKey&, Nanoseconds) override { return true; }
  void on_hit(const BlockKey&, Nanoseconds) override {}
  bool is_wanted(const BlockKey&, Nanoseconds) override { return true; }
  bool counts() const override { return false; }
  Bytes memory() const override { return Bytes(0); }
};

Status check_entries(std::uint64_t entries) {
  if (entries > 0 && entries <= 2'000'000'000) return {};
  return {Code::kInvalid,
          "admission entries is " + std::to_string(entries) + "; between 1 and 2000000000"};
}

Status check(const FrequencyOptions& options) {
  if (options.threshold == 0) return {Code::kInvalid, "admission threshold is 0; at least 1"};
  if (options.decay_interval <= Nanoseconds(0)) {
    return {Code::kInvalid, "admission decay interval is not above 0"};
  }
  return check_entries(options.entries);
}

Result<std::unique_ptr<AdmissionFilter>> or_no_memory(std::unique_ptr<AdmissionFilter> filter,
                                                      std::uint64_t entries) {
  if (filter != nullptr) return filter;
  return fail(Code::kExhausted, "no memory for " + std::to_string(entries) +
                                    " admission counts: lower the number of entries");
}

}  // namespace

std::unique_ptr<AdmissionFilter> make_admit_all() { return std::make_unique<AdmitAll>(); }

Result<std::unique_ptr<AdmissionFilter>> make_admission(std::string_view name,
                                                        const AdmissionOptions& options) {
  if (name == "all") return make_admit_all();
  if (name == "frequency") {
    TERRACE_RETURN_IF_ERROR(check(options.frequency));
    return or_no_memory(make_frequency(options.frequency), options.frequency.entries);
  }
  if (name == "expected") {
    const ExpectedOptions& given = options.expected;
    const std::uint64_t entries = given.entries > 0 ? given.entries : given.usual_entries();
    TERRACE_RETURN_IF_ERROR(check_entries(entries));
    if (!(given.most_lost >= 0 && given.most_lost <= 1)) {
      return fail(Code::kInvalid, "admission loss is " + std::to_string(given.most_lost) +
                                      " of all blocks; between 0 and 1");
    }
    return or_no_memory(make_expected(given), entries);
  }
  if (name == "reuse") {
    TERRACE_RETURN_IF_ERROR(check_entries(options.reuse.entries));
    return or_no_memory(make_reuse(options.reuse), options.reuse.entries);
  }
  return fail(Code::kInvalid, "admission policy \"" + std::string(name) +
                                  "\" is unknown; known: all, expected, frequency, reuse");
}

}  // namespace terrace::policy
