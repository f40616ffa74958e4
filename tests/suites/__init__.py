"""What users rely on, one suite a file: real requests through a running proxy, with the official SDK or plain HTTP.

Behind the proxy a scripted provider answers, so that neither key nor network is needed. With
`make test-tools MODEL=deepseek/deepseek-chat`, or CCPROXY_TEST_MODEL in the environment, the real model answers; its
key comes from the environment or `.env`, as for the proxy itself. Tests that make no sense then are skipped.
"""
