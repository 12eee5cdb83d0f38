// Protocol selection of a service port, row by row as Istio's ConvertProtocol decides it.
import { describe, expect, it } from 'vitest'
import { protocolOf } from './service.ts'

describe('protocol selection', () => {
  it.each([
    ['http', 'http'],
    ['HTTP', 'http'],
    ['http-web', 'http'],
    ['http2', 'http2'],
    ['http2-api', 'http2'],
    ['grpc', 'grpc'],
    ['grpc-api', 'grpc'],
    ['grpc-web', 'http'],
    ['grpc-web-ui', 'http'],
    ['grpc-webby', 'grpc'],
    ['https', 'tls'],
    ['https-admin', 'tls'],
    ['tls', 'tls'],
    ['tls-x', 'tls'],
    ['tcp', 'tcp'],
    ['tcp-anything', 'tcp'],
    ['tcp-tls', 'tcp'],
    ['mongo', 'tcp'],
    ['mysql-main', 'tcp'],
    ['redis', 'tcp'],
    ['', 'unknown'],
    ['web', 'unknown'],
    ['httpish', 'unknown'],
    ['h2c', 'unknown'],
    ['my-http', 'unknown'],
  ])('of a port named %j is %s', (name, protocol) => {
    expect(protocolOf({ port: 8080, name })).toBe(protocol)
  })

  it.each([
    ['kubernetes.io/h2c', 'http2'],
    ['kubernetes.io/ws', 'http'],
    ['kubernetes.io/wss', 'tls'],
    ['http', 'http'],
    ['http2', 'http2'],
    ['grpc', 'grpc'],
    ['https', 'tls'],
    ['tls', 'tls'],
    ['tcp', 'tcp'],
    ['redis', 'tcp'],
    // One that is not known hides the name: the port is detected.
    ['example.com/custom', 'unknown'],
  ])('by appProtocol %j is %s, whatever the name says', (appProtocol, protocol) => {
    expect(protocolOf({ port: 8080, name: 'tcp-x', appProtocol })).toBe(protocol)
    expect(protocolOf({ port: 8080, name: 'http', appProtocol })).toBe(protocol)
  })

  it.each([25, 53, 3306, 27017])('of port %d without a name is TCP: its server speaks first', (port) => {
    expect(protocolOf({ port, name: '' })).toBe('tcp')
    expect(protocolOf({ port, name: 'db' })).toBe('tcp')
    expect(protocolOf({ port, name: 'http' })).toBe('http')
  })
})
