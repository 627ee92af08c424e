// Verdicts from an exported file in C++. Raw RGB pixels in, one line per image out.
//
//   g++ -std=c++17 -O2 decide.cpp -I onnxruntime/include -L onnxruntime/lib -lonnxruntime -Wl,-rpath,onnxruntime/lib -o decide
//   ./decide osc.onnx 32 32 < pixels.rgb
//
// onnxruntime: a release of https://github.com/microsoft/onnxruntime, unpacked here.
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "decide osc.onnx HEIGHT WIDTH < pixels.rgb\n";
    return 2;
  }
  const int64_t height = std::atoll(argv[2]), width = std::atoll(argv[3]), bytes = height * width * 3;
  std::vector<uint8_t> pixels((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  if (bytes <= 0 || pixels.empty() || pixels.size() % bytes != 0) {
    std::cerr << pixels.size() << " bytes are no whole number of RGB images of " << height << " x " << width << "\n";
    return 1;
  }
  try {
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "knownot");
    Ort::Session session(env, argv[1], Ort::SessionOptions{});
    const int64_t count = static_cast<int64_t>(pixels.size()) / bytes;
    const std::vector<int64_t> shape{count, height, width, 3};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto images = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
    const char* inputs[] = {"images"};
    const char* outputs[] = {"label", "p_value", "score"};
    auto made = session.Run(Ort::RunOptions{nullptr}, inputs, &images, 1, outputs, 3);
    const auto* label = made[0].GetTensorData<int64_t>();
    const auto* p = made[1].GetTensorData<float>();
    const auto* score = made[2].GetTensorData<float>();
    for (int64_t i = 0; i < count; ++i)
      std::cout << (label[i] < 0 ? "unknown" : std::to_string(label[i])) << "\t" << p[i] << "\t" << score[i] << "\n";
  } catch (const Ort::Exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
