{{/*
A Deployment of workers and its budget. Called with root, component list, name, own values, environment and secrets.
*/}}
{{- define "millrace.worker" -}}
{{- $root := .root }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  labels:
    {{- include "millrace.labels" .component | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ int64 .own.replicas }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "millrace.selector" .component | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "millrace.labels" .component | nindent 8 }}
        millrace/worker: "true"
      annotations:
        {{- include "millrace.podAnnotations" (list $root .own.podAnnotations) | nindent 8 }}
    spec:
      {{- include "millrace.podSpec" (list $root .component .own) | nindent 6 }}
      # The grace, and 10 s that closing itself may take. A worker asks for its work, so it needs no pause before SIGTERM.
      terminationGracePeriodSeconds: {{ add $root.Values.shutdownGraceSeconds 12 }}
      containers:
        - name: worker
          image: {{ include "millrace.image" (list $root "worker") }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          ports: [{ name: http, containerPort: 3001 }]
          env:
            - { name: WORKER_PORT, value: "3001" }
            - { name: WORKER_HOST, value: "0.0.0.0" }
            {{- .env | nindent 12 }}
            {{- include "millrace.secretEnv" (list $root .secrets) | trim | nindent 12 }}
            {{- include "millrace.settingsEnv" (list $root .own.settings) | trim | nindent 12 }}
          # Loading a model may take two minutes.
          startupProbe: { httpGet: { path: /health, port: http }, periodSeconds: 2, failureThreshold: 90 }
          livenessProbe: { httpGet: { path: /health, port: http }, periodSeconds: 10, timeoutSeconds: 3, failureThreshold: 3 }
          readinessProbe: { httpGet: { path: /ready, port: http }, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 3 }
          resources:
            {{- toYaml .own.resources | nindent 12 }}
          {{- include "millrace.containerSecurity" $root | nindent 10 }}
          volumeMounts:
            - { name: tmp, mountPath: /tmp }
            {{- if $root.Values.secrets.asFiles }}
            - { name: secrets, mountPath: /run/secrets/millrace, readOnly: true }
            {{- end }}
            {{- if .own.modelsVolume }}
            - { name: models, mountPath: /models, readOnly: true }
            {{- end }}
      volumes:
        - { name: tmp, emptyDir: { medium: Memory, sizeLimit: 64Mi } }
        {{- if $root.Values.secrets.asFiles }}
        {{- include "millrace.secretVolume" (list $root .secrets) | nindent 8 }}
        {{- end }}
        {{- with .own.modelsVolume }}
        - name: models
          {{- toYaml . | nindent 10 }}
        {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels:
    {{- include "millrace.labels" .component | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "millrace.selector" .component | nindent 6 }}
{{- end -}}
