"""An engine made of vLLM: its scheduler and models behind the contract that our own engine fulfils.

vLLM is imported by functions, after `vllm_library.prepare` has set its environment. See docs/engines.md.
"""
